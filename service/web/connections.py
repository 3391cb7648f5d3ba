"""Connections to clients: how many, how long a header may be and take, and who must read answers.

uvicorn's own protocol bounds none of these. It is given to uvicorn by name: see
`service.runtime.supervisor`.
"""

import asyncio
import json
import resource
from asyncio.events import TimerHandle
from http import HTTPStatus
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from registry.settings import settings
from service.web.unread import ReadDeadline

# Request line and all headers. Cookies and keys need less than four KiB.
MAX_HEADER_BYTES = 64 * 2**10
MAX_HEADERS = 100
# Files, sockets to engines and to the database need descriptors too.
OTHER_DESCRIPTORS = 256

log = structlog.stdlib.get_logger(__name__)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds.

    A connection is closed when a header is too long (431) or takes longer than `header_seconds`
    (408), and cut when the client does not read its answer. A connection beyond `max_connections`
    is refused (503).
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._usual_app = self.app
        self._waits_for_header = True
        self._header_bytes = 0
        self._deadline: TimerHandle | None = None
        self._read_deadline: ReadDeadline  # from the first moment of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio types the transport of every protocol more widely than a server's is.
        super().connection_made(transport)
        self._read_deadline = ReadDeadline(transport, loop=self.loop)
        if len(self.connections) > max_connections():
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again")
            return
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._read_deadline.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_deadline.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_deadline.stop()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._waits_for_header:
            # What follows the header in the same piece is small, and only counts near the limit.
            self._header_bytes += len(data)
        super().data_received(data)
        if self._waits_for_header and self._header_bytes > MAX_HEADER_BYTES:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _too_long())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_header()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        is_fit = size <= MAX_HEADER_BYTES and len(self.headers) <= MAX_HEADERS
        # A method of its own may be called for each request of the connection.
        self.app = self._usual_app if is_fit else _refuse_header
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        is_next_here, is_whole = bool(self.pipeline), not self.cycle.more_body
        super().on_response_complete()
        if not is_next_here and not self.transport.is_closing():
            # uvicorn forgets its own deadline when a client sends line ends or the rest of a body.
            self._await_header()
            self._waits_for_header = is_whole

    def _await_header(self) -> None:
        self._waits_for_header = True
        if self._deadline is None:
            seconds = settings().header_seconds
            self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _stop_waiting(self) -> None:
        self._waits_for_header, self._header_bytes = False, 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        if not self._header_bytes:
            # A browser opens connections before it needs them, and expects no answer on them.
            self.transport.close()
            return
        seconds = settings().header_seconds
        self._end(HTTPStatus.REQUEST_TIMEOUT, f"the header did not arrive in {seconds:g} seconds")

    def _end(self, status: HTTPStatus, detail: str) -> None:
        """Answer with an error, as nobody else will, and close the connection."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\n"
                "content-type: application/problem+json\r\nconnection: close\r\n"
            )
            body = _problem(status, detail)
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


def max_connections() -> int:
    """Return how many connections are held at a time."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(settings().max_connections, descriptors - OTHER_DESCRIPTORS))


def raise_descriptor_limit() -> None:
    """Let this process open as many files and sockets as it may.

    The usual soft limit is for programs that know no other; it is less than the connections here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if max_connections() < settings().max_connections:
        log.warning("fewer connections than set: descriptors are few", limit=max_connections())


def _too_long() -> str:
    return f"the header has more than {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} fields"


async def _refuse_header(scope: Scope, receive: Receive, send: Send) -> None:
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    body = _problem(status, _too_long())
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _problem(status: HTTPStatus, detail: str) -> bytes:
    """Return the error as JSON; there is no request yet whose path would tell the dialect."""
    code = status.phrase.lower().replace(" ", "_")
    problem = {"title": status.phrase, "status": status.value, "detail": detail, "code": code}
    return json.dumps({"type": "about:blank"} | problem).encode()
