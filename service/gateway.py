"""The OpenAI-compatible routes: find the engine of a model, forward the request, stream the answer.

Bodies are forwarded byte for byte. The engine's answer is the answer, also when it is an error.
"""

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import anyio
import httpx
import structlog
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from engine.serving import deployments, model_routes, sleeping
from engine.serving.model_routes import Route
from engine.serving.sleeping import Asleep
from engine.vllm_plugin.attribution import nexus_field
from engine.vllm_server import endpoints
from registry import bounded_json, tracing
from registry.database import db
from registry.errors import InvalidInput, Problem, TimedOut, Unavailable, pointer
from registry.settings import settings
from registry.texts import UNFIT_FOR_LINES, UNFIT_FOR_MODELS
from service import completion_limits, errors
from service.reports import model_cards
from service.schemas.common import Line
from service.web import admission, preview_marks
from service.web.auth import Application
from service.web.checked_routes import CheckedRoute, read_at_once
from service.web.deps import Session
from service.web.remembered import Remembered
from service.web.threads import READING
from service.web.waking import Waking

router = APIRouter(prefix="/v1", tags=["openai"], route_class=CheckedRoute)

ModelName = Annotated[Line, Path(description="Name of a served model.")]
log = structlog.stdlib.get_logger(__name__)

# Names the host whose service passed a request on.
HOP_HEADER = "x-nexusmix-hop"
OVERHEAD_HEADER = "X-Nexusmix-Overhead-Ms"
EVENT_STREAM = "text/event-stream"
EVENT_END = b"\n\n"
CONNECT_SECONDS = 5.0
NO_ANSWER = "the engine of this model does not answer; it is being restarted"
# vLLM closes an idle connection after five seconds. Stop using it earlier: a request that is sent
# in that moment gets no answer.
IDLE_SECONDS = 2.0
# Attempts to send a request when the connection ends without an answer.
MAX_ATTEMPTS = 3
# Headers of the engine's answer that the client gets; the others concern the inner connection.
FORWARDED_HEADERS = ("content-type", "retry-after", nexus_field.HEADER, preview_marks.HEADER)
RESPONSES = "/responses"
NOT_THERE = "`nexus` is not a field of responses: ask `/v1/chat/completions` or `/v1/completions`"
NOT_READ = "the engine of this model is too old to know `nexus`; deploy the model again"


def open_client() -> httpx.AsyncClient:
    """Return the HTTP client for the engines. Who reads an answer sets the deadline for it."""
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_SECONDS
    )
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        transport=endpoints.Transport(limits),
    )


def remembered_routes() -> Remembered[str, Route]:
    """Return the memory of routes to engines by model name."""
    return Remembered(_resolve)


def remembered_models() -> Remembered[None, list[dict[str, Any]]]:
    """Return the memory of the list of models."""
    return Remembered(_list)


_slots = admission.Slots("requests to models")


async def _completion_slot(request: Request) -> AsyncIterator[None]:
    """Hold a slot of the key until the answer has been sent. Raises TooManyRequests."""
    sender = admission.sender_of(request)
    with _slots.held(sender, most=settings().max_completions_per_key):
        yield


CompletionSlot = Annotated[None, Depends(_completion_slot)]


@router.get("/models")
async def list_models(request: Request, _: Application) -> dict[str, Any]:
    """List the models that answer; the first request wakes one that is asleep.

    Besides OpenAI's fields a model has `max_model_len`, the tokens that a prompt and its answer may
    have together (null before its engine has answered), and `nexusmix`: an object with `state`,
    `experts` (objects with `name` and `version`), `license` (SPDX; null where it is not known),
    `preview`, and the ids `deployment` and `artifact`.
    """
    models: Remembered[None, list[dict[str, Any]]] = request.app.state.models
    return {"object": "list", "data": await models.get(None)}


@router.get("/models/{model}")
def get_model(model: ModelName, session: Session, _: Application) -> dict[str, Any]:
    """Return a model."""
    found = model_routes.find_answering(session, model)
    [card] = model_cards.cards(session, {model: found or deployments.find_by_model(session, model)})
    return card


@router.post("/completions")
@router.post(RESPONSES)
@router.post("/chat/completions")
async def complete(request: Request, _: Application, slot: CompletionSlot) -> Response:
    """Answer with a completion of the requested model.

    Besides OpenAI's fields a request may have vLLM's, and `nexus`: an object with `routing` (true
    or "blocks": say which experts wrote each token), `prompt` (true: and each token of the prompt),
    and `disable` or `only` (names of experts that are off, or that alone are on, in this request).

    What a preview answers has the header `X-Nexusmix-Preview`, and `nexus.preview` in its body and
    in each event. Waits for a model that is asleep. Raises NotFound for an unknown model,
    Unavailable while its engine starts or is gone.
    """
    began = time.perf_counter()
    body = await request.body()
    model, has_nexus = await read_at_once(partial(_model_name, body), num_bytes=len(body))
    if has_nexus and request.url.path.endswith(RESPONSES):
        raise InvalidInput(NOT_THERE, problems=(Problem(pointer(nexus_field.FIELD), NOT_THERE),))
    upstream, is_preview, sent = await _ask(request, model, body)
    if has_nexus and upstream.is_success and nexus_field.HEADER not in upstream.headers:
        # It would be an answer of all experts, and would not say so.
        await upstream.aclose()
        problem = Problem(pointer(nexus_field.FIELD), NOT_READ)
        raise InvalidInput(NOT_READ, problems=(problem,))
    headers = {
        name: upstream.headers[name] for name in FORWARDED_HEADERS if name in upstream.headers
    }
    headers[OVERHEAD_HEADER] = f"{(sent - began) * 1000:.2f}"
    if is_preview:
        headers[preview_marks.HEADER] = preview_marks.YES
    if upstream.is_stream_consumed:
        content = upstream.content
        if is_preview and upstream.is_success:
            content = await READING.run(partial(preview_marks.marked, content))
        return Response(content, status_code=upstream.status_code, headers=headers)
    return Relay(upstream, headers=headers, is_preview=is_preview)


class Relay(StreamingResponse):
    """Streams the events of an engine to the client. When one side leaves, the other is closed."""

    def __init__(
        self, upstream: httpx.Response, *, headers: dict[str, str], is_preview: bool
    ) -> None:
        events = _events(upstream, is_preview=is_preview)
        super().__init__(events, status_code=upstream.status_code, headers=headers)
        self.upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # The engine stops generating when its connection closes. A cancelled task must close it
            # too.
            with anyio.CancelScope(shield=True):
                await self.upstream.aclose()


async def _events(upstream: httpx.Response, *, is_preview: bool) -> AsyncIterator[bytes]:
    """Yield whole events, so that the client never gets half an event of a dying engine."""
    rest = b""
    chunks = upstream.aiter_raw()
    seconds = settings().first_byte_seconds
    try:
        while True:
            with anyio.fail_after(seconds):
                chunk = await anext(chunks, b"")
            if not chunk:
                return
            whole, end, rest = (rest + chunk).rpartition(EVENT_END)
            if whole:
                yield preview_marks.marked_events(whole + end) if is_preview else whole + end
                seconds = settings().event_seconds
    except httpx.HTTPError as error:
        log.warning("engine died while answering", error=repr(error))
        message = "the engine stopped while answering; send the request again"
        yield _error_event(503, message, code="unavailable")
    except TimeoutError:
        log.warning("engine is silent while answering", seconds=seconds)
        yield _error_event(504, _silent(seconds), code="timed_out")


def _error_event(status: int, message: str, *, code: str) -> bytes:
    envelope = errors.openai_error(status, message, code=code)
    return b"data: " + json.dumps(envelope).encode() + EVENT_END


def _silent(seconds: float) -> str:
    return f"the engine of this model has sent nothing for {seconds:g} seconds; send it again later"


async def _ask(request: Request, model: str, body: bytes) -> tuple[httpx.Response, bool, float]:
    """Return the answer of the model's engine, whether we mark it, and the time when it was asked.

    The service of another host has marked the answer of its own preview.
    Tries again when a connection ends without an answer: the engine may have closed it while it was
    idle, or another engine may serve the model now. Raises NotFound, Unavailable and TimedOut.
    """
    client: httpx.AsyncClient = request.app.state.engines
    routes: Remembered[str, Route] = request.app.state.routes
    waking: Waking = request.app.state.waking
    for _ in range(MAX_ATTEMPTS):
        address, is_preview = await waking.route(model)
        passed_on = _passed_on(request, address)
        forwarded = client.build_request(
            "POST",
            endpoints.url(address) + request.url.path,
            content=body,
            extensions={"engine": address},
            headers=endpoints.headers(address)
            | passed_on
            | tracing.headers()
            | {
                "content-type": "application/json",
                "accept-encoding": "identity",
                "x-request-id": request.state.request_id,
            },
        )
        sent = time.perf_counter()
        upstream = await _send(client, forwarded, request)
        if upstream is not None:
            return upstream, is_preview and not address.startswith(endpoints.PEER), sent
        routes.doubt(model)
    raise Unavailable(NO_ANSWER)


async def _send(
    client: httpx.AsyncClient, forwarded: httpx.Request, request: Request
) -> httpx.Response | None:
    """Send a request and return the engine's answer.

    A stream is read up to its first event, any other answer to its end. Returns None when the
    connection ends before an answer begins, or the engine says that it has died. Raises Unavailable
    when it ends later, TimedOut when the answer takes too long, and ClientDisconnect when the
    client has gone.
    """
    upstream: httpx.Response | None = None
    is_read = False
    failure: httpx.HTTPError | TimeoutError | None = None
    seconds = settings().first_byte_seconds
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_gone, request, group.cancel_scope)
        try:
            with anyio.fail_after(seconds):
                upstream = await client.send(forwarded, stream=True)
                if not upstream.headers.get("content-type", "").startswith(EVENT_STREAM):
                    await upstream.aread()
            is_read = True
        except (httpx.HTTPError, TimeoutError) as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        log.warning("engine does not answer", error=repr(failure))
        if upstream is not None:
            await upstream.aclose()
        if isinstance(failure, TimeoutError):
            raise TimedOut(_silent(seconds))
        if upstream is None:
            return None
        raise Unavailable(NO_ANSWER)
    if upstream is None or not is_read:
        if upstream is not None:
            await upstream.aclose()
        raise ClientDisconnect
    if upstream.is_stream_consumed and endpoints.has_died(upstream.status_code, upstream.content):
        log.warning("engine says that it has died")
        return None
    return upstream


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    """Cancel `scope` when the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _passed_on(request: Request, address: str) -> dict[str, str]:
    """Return the headers for the service of another host, which asks for the client's key itself.

    Raises Unavailable when that service sent the request here: the model has just moved.
    """
    if not address.startswith(endpoints.PEER):
        return {}
    if HOP_HEADER in request.headers:
        raise Unavailable("the model is moving to another host; try again")
    return {
        "authorization": request.headers.get("authorization", ""),
        HOP_HEADER: settings().host_name,
    }


def _resolve(model: str) -> Route:
    """Return the route to the model's engine, and wake it. Raises NotFound and Unavailable."""
    try:
        with db.transaction() as session:
            return model_routes.resolve(session, model)
    except Asleep:
        with db.transaction() as session:
            sleeping.wake(session, model)
        raise


def _list(_: None) -> list[dict[str, Any]]:
    """Return the models that answer now."""
    with db.transaction() as session:
        return model_cards.cards(session, model_routes.available(session))


def _model_name(body: bytes) -> tuple[str, bool]:
    """Return the `model` of a request, and whether it has a field `nexus`.

    Raises InvalidInput for a wrong or costly one.
    """
    request = bounded_json.parse(body, unfit=UNFIT_FOR_MODELS)
    model = request.get("model") if isinstance(request, dict) else None
    if not isinstance(model, str) or UNFIT_FOR_LINES.search(model):
        problem = Problem("/model", "is missing; name a deployed model")
        raise InvalidInput("the body must be a JSON object with a `model`", problems=(problem,))
    completion_limits.check(request)
    return model, request.get(nexus_field.FIELD) is not None
