"""Middleware: request ids, access log, metrics, security headers, host check, and unfit
characters outside the body.
"""

import re
import time
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import texts, tracing
from registry.errors import InvalidInput, Problem, pointer
from service import errors

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MAX_QUERY_FIELDS = 1000
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
    """Gives each request an id and security headers, logs it, counts it and traces it.

    Logs and traces leave out the query string: the one of `/sign-in` carries a secret.
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
                seconds = time.perf_counter() - began
                _record(scope, span, status=message["status"], seconds=seconds)
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            tracing.span(
                scope["method"],
                parent=Headers(scope=scope),
                kind="server",
                attributes={
                    "http.request.method": scope["method"],
                    "url.path": scope["path"],
                    "nexusmix.request.id": request_id,
                },
            ) as span,
        ):
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


class CheckTarget:
    """Refuses paths, queries and headers with characters that nothing here can store or show."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                _check_target(scope)
            except InvalidInput as error:
                refusal = errors.refusal(Request(scope), error)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _check_target(scope: Scope) -> None:
    """Raise InvalidInput for an unfit character, or more than MAX_QUERY_FIELDS in a query."""
    texts.check(scope["path"], at="/path", unfit=texts.UNFIT_FOR_LINES)
    try:
        query = parse_qsl(
            scope["query_string"].decode("latin-1"),
            keep_blank_values=True,
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError:
        detail = f"has more than {MAX_QUERY_FIELDS} fields"
        raise InvalidInput(f"the query {detail}", problems=(Problem("/query", detail),)) from None
    for name, value in query:
        at = pointer("query", name)
        texts.check(name, at="/query", unfit=texts.UNFIT_FOR_LINES)
        texts.check(value, at=at, unfit=texts.UNFIT_FOR_LINES)
    for name, value in Headers(scope=scope).items():
        texts.check(value, at=pointer("header", name), unfit=texts.UNFIT)


def _host(scope: Scope) -> str | None:
    """Return the name in the Host header in lower case, without the port; None if it is wrong."""
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
    except ValueError:
        return None


def _record(scope: Scope, span: "Span | None", *, status: int, seconds: float) -> None:
    """Count and log a request, and describe its span as OpenTelemetry's conventions do."""
    route = getattr(scope.get("route"), "path", "unmatched")
    if span is not None:
        span.update_name(f"{scope['method']} {route}")
        span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            tracing.mark_failed(span)
    REQUESTS.labels(scope["method"], route, status).inc()
    SECONDS.labels(scope["method"], route).observe(seconds)
    log.info(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )
