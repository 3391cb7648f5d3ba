"""Answers that their client does not read: after a while the connection is cut.

Otherwise such a client would keep its slot, a file and an engine busy for ever.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from asyncio.events import TimerHandle

import structlog

from registry.settings import settings

# Bytes that a client must take of a waiting answer in `answer_seconds`: little for any network, and
# more than a client takes that reads a byte now and then.
LEAST_BYTES = 64 * 2**10

log = structlog.stdlib.get_logger(__name__)


class ReadDeadline:
    """Cuts a connection whose client takes too little of what waits for it.

    The system notices a client that takes nothing, also when the server has closed its end or the
    client has left the network. While more waits than the system holds, a client must take
    LEAST_BYTES in each `answer_seconds`.
    """

    def __init__(self, transport: asyncio.Transport, *, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._num_waiting = 0
        self._timer: TimerHandle | None = None
        milliseconds = int(settings().answer_seconds * 1000)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def start(self) -> None:
        """Count what the client takes from now on; nothing may be written until `stop`."""
        self.stop()
        self._num_waiting = self._count_waiting()
        self._timer = self._loop.call_later(settings().answer_seconds, self._check)

    def stop(self) -> None:
        """Expect nothing of the client."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        if self._num_waiting - self._count_waiting() >= LEAST_BYTES:
            self.start()
            return
        self._timer = None
        log.warning("a client does not read its answer; its connection is cut")
        self._transport.abort()

    def _count_waiting(self) -> int:
        """Return how many bytes wait in this process and in the system."""
        held = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        return self._transport.get_write_buffer_size() + int(struct.unpack("i", held)[0])
