"""Middleware: request ids, access log, metrics, security headers, host check, body limit."""

import re
import time
import uuid
from collections.abc import Collection
from urllib.parse import urlsplit

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors

# Enough for JSON: the safetensors header of a model with 400 billion parameters is below one MiB.
MAX_BODY_BYTES = 32 * 2**20
# Blobs are streamed to disk and have their own limit.
STREAMED_PREFIX = "/api/v1/blobs/"
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # Pages load only our own files, and other sites cannot frame them.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}

REQUESTS = Counter(
    "nexusmix_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
SECONDS = Histogram(
    "nexusmix_http_request_seconds", "Seconds until the answer starts.", ["method", "route"]
)

log = structlog.stdlib.get_logger(__name__)


class Observe:
    """Gives each request an id and security headers, logs it and counts it.

    It never logs the query string: that of `/sign-in` carries a secret.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                _record(scope, status=message["status"], seconds=time.perf_counter() - began)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self.app(scope, receive, send_observed)


class KnownHosts:
    """Refuses requests whose Host header names none of `hosts`."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _host(scope) not in self.hosts:
            detail = f"the Host header names none of {', '.join(sorted(self.hosts))}"
            refusal = errors.response(Request(scope), 400, detail, code="bad_request")
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class LimitBody:
    """Refuses bodies longer than MAX_BODY_BYTES, before they fill the memory."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(STREAMED_PREFIX):
            await self.app(scope, receive, send)
            return
        announced = int(Headers(scope=scope).get("content-length", "0"))
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            # Raise where the body is read, so that the usual error handlers write the answer.
            if max(announced, received) > MAX_BODY_BYTES:
                raise _too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise _too_large()
            return message

        await self.app(scope, receive_bounded, send)


def _host(scope: Scope) -> str | None:
    """Return the name in the Host header in lower case, without the port; None if it is wrong."""
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
    except ValueError:
        return None


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes")


def _record(scope: Scope, *, status: int, seconds: float) -> None:
    """Count and log a request."""
    route = getattr(scope.get("route"), "path", "unmatched")
    REQUESTS.labels(scope["method"], route, status).inc()
    SECONDS.labels(scope["method"], route).observe(seconds)
    log.info(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )
