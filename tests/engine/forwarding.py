"""Reach an engine on a Unix socket by a URL, as a server of strangers is reached."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

from engine.vllm_server import endpoints


class _Forwarding(ThreadingTCPServer):
    daemon_threads = True
    path: str


class _Handler(StreamRequestHandler):
    wbufsize = 0
    rbufsize = 0
    server: _Forwarding

    def handle(self) -> None:
        """Copy both directions until one side closes."""
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.path)
            answers = engine.makefile("rb", buffering=0)
            thread = threading.Thread(target=self._copy_answers, args=(answers,), daemon=True)
            thread.start()
            with suppress(OSError):
                shutil.copyfileobj(self.rfile, engine.makefile("wb", buffering=0), 4096)
                engine.shutdown(socket.SHUT_WR)
            thread.join()

    def _copy_answers(self, answers: socket.SocketIO) -> None:
        with suppress(OSError):
            shutil.copyfileobj(answers, self.wfile, 4096)
            self.connection.shutdown(socket.SHUT_WR)


@contextmanager
def forwarded(address: str) -> Iterator[str]:
    """Yield a URL on loopback at which the engine at `unix:PATH` answers."""
    path = endpoints.socket_path(address)
    assert path is not None, address
    with _Forwarding(("127.0.0.1", 0), _Handler) as server:
        server.path = path
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
