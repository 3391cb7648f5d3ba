"""A TCP proxy on loopback that cuts its first connections."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 10

Cut = tuple[int | None, int | None]


class CuttingLine:
    """Forwards to `target`, and cuts one connection for each pair in `cuts`.

    The first number is the bytes of the request before the cut, the second the bytes of the answer;
    None means no cut.
    """

    def __init__(self, target: tuple[str, int], *, cuts: list[Cut]) -> None:
        self.cuts = cuts
        self._target = target
        self._ways: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                asked, answered = self.cuts.pop(0) if self.cuts else (None, None)
                far = socket.create_connection(self._target)
                for ways in ((near, far, asked), (far, near, answered)):
                    self._ways.append(threading.Thread(target=_forward, args=ways))
                    self._ways[-1].start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for way in self._ways:
            way.join()


def _forward(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    passed = 0
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data if limit is None else data[: limit - passed])
            passed += len(data)
            if limit is not None and passed > limit:
                break
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    # The thread of the other direction still reads from the sink, and closes it.
    source.close()


@contextmanager
def cutting(address: str, *, cuts: list[Cut]) -> Iterator[CuttingLine]:
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    line = CuttingLine((parts.hostname, parts.port), cuts=cuts)
    thread = threading.Thread(target=line.run)
    thread.start()
    try:
        yield line
    finally:
        line.stop()
        thread.join()
