"""The OpenAI-compatible endpoint: find a model's engine, pass the request on, stream the answer.

Bodies go through byte for byte; what the engine answers, its errors included, is the answer.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from engine.serving import deployments
from engine.serving.tables import Deployment
from registry.database import db
from registry.errors import InvalidInput, Problem, Unavailable
from service import errors
from service.web.auth import Writer
from service.web.deps import Session

router = APIRouter(prefix="/v1", tags=["openai"])
log = structlog.stdlib.get_logger(__name__)

OVERHEAD_HEADER = "X-Nexusmix-Overhead-Ms"
EVENT_STREAM = "text/event-stream"
EVENT_END = b"\n\n"
NO_ANSWER = "the engine of this model does not answer; it is being restarted"
# vLLM closes an idle connection after five seconds, and what is sent just then gets no answer.
IDLE_SECONDS = 2.0
# How often a request is sent whose connection ended without an answer.
MAX_ATTEMPTS = 3
# Of the answer, what the client needs; the rest belongs to the connection with the engine.
PASSED_BACK = ("content-type", "retry-after")


def open_client() -> httpx.AsyncClient:
    """The connections to the engines. A completion may take any time; only connecting may not."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=5.0),
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_SECONDS
        ),
        trust_env=False,
    )


@router.get("/models")
def list_models(session: Session, _: Writer) -> dict[str, Any]:
    return {"object": "list", "data": [_model(row) for row in deployments.ready(session)]}


@router.get("/models/{model}")
def get_model(model: str, session: Session, _: Writer) -> dict[str, Any]:
    return _model(deployments.find_by_model(session, model))


@router.post("/completions")
@router.post("/chat/completions")
async def complete(request: Request, _: Writer) -> Response:
    """Raises NotFound for an unknown model, Unavailable while its engine starts or is gone."""
    began = time.perf_counter()
    body = await request.body()
    model = _model_name(body)
    upstream, sent = await _ask(request, model, body)
    headers = {name: upstream.headers[name] for name in PASSED_BACK if name in upstream.headers}
    headers[OVERHEAD_HEADER] = f"{(sent - began) * 1000:.2f}"
    if upstream.is_stream_consumed:
        return Response(upstream.content, status_code=upstream.status_code, headers=headers)
    return Relay(upstream, headers=headers)


class Relay(StreamingResponse):
    """An engine's events on their way to the client; either end going away closes the other."""

    def __init__(self, upstream: httpx.Response, *, headers: dict[str, str]) -> None:
        super().__init__(_events(upstream), status_code=upstream.status_code, headers=headers)
        self.upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # The engine stops generating when its connection closes: a cancelled task says so too.
            with anyio.CancelScope(shield=True):
                await self.upstream.aclose()


async def _events(upstream: httpx.Response) -> AsyncIterator[bytes]:
    """Whole events only, so that one that the engine could not finish never reaches the client."""
    rest = b""
    try:
        async for chunk in upstream.aiter_raw():
            whole, end, rest = (rest + chunk).rpartition(EVENT_END)
            if whole:
                yield whole + end
    except httpx.HTTPError as error:
        log.warning("engine died while answering", error=repr(error))
        message = "the engine stopped while answering; send the request again"
        envelope = errors.openai_error(503, message, code="unavailable")
        yield b"data: " + json.dumps(envelope).encode() + EVENT_END


async def _ask(request: Request, model: str, body: bytes) -> tuple[httpx.Response, float]:
    """The answer of the model's engine, and when it was asked.

    A connection that ends without an answer is no failure yet: the engine closed it while it was
    idle, or another engine has taken the model over. Raises NotFound and Unavailable.
    """
    client: httpx.AsyncClient = request.app.state.engines
    for _ in range(MAX_ATTEMPTS):
        address = await run_in_threadpool(_resolve, model)
        forwarded = client.build_request(
            "POST",
            address + request.url.path,
            content=body,
            headers={
                "content-type": "application/json",
                "accept-encoding": "identity",
                "x-request-id": request.state.request_id,
            },
        )
        sent = time.perf_counter()
        upstream = await _send(client, forwarded, request)
        if upstream is not None:
            return upstream, sent
    raise Unavailable(NO_ANSWER)


async def _send(
    client: httpx.AsyncClient, forwarded: httpx.Request, request: Request
) -> httpx.Response | None:
    """The engine's answer: read to its end, or to the first event when it is a stream.

    None when the connection ended before an answer began. Raises Unavailable when it ended after
    that, ClientDisconnect when nobody waits any more.
    """
    upstream: httpx.Response | None = None
    failure: httpx.HTTPError | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_gone, request, group.cancel_scope)
        try:
            upstream = await client.send(forwarded, stream=True)
            if not upstream.headers.get("content-type", "").startswith(EVENT_STREAM):
                await upstream.aread()
        except httpx.HTTPError as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        log.warning("engine does not answer", error=repr(failure))
        if upstream is None:
            return None
        raise Unavailable(NO_ANSWER)
    if upstream is None:
        raise ClientDisconnect
    return upstream


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _resolve(model: str) -> str:
    with db.transaction() as session:
        return deployments.resolve(session, model)


def _model_name(body: bytes) -> str:
    try:
        model = json.loads(body)["model"]
    except (ValueError, KeyError, TypeError):
        model = None
    if not isinstance(model, str):
        problem = Problem("/model", "is missing: the name of a deployed mix")
        raise InvalidInput("the body must be a JSON object with a `model`", problems=(problem,))
    return model


def _model(row: Deployment) -> dict[str, Any]:
    return {
        "id": row.model,
        "object": "model",
        "created": int(row.created_at.timestamp()),
        "owned_by": "nexusmix",
        "nexusmix": {"deployment": row.id, "artifact": row.artifact_id},
    }
