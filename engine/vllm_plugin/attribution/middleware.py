"""An ASGI middleware of vLLM's server that understands the field `nexus` of requests.

Requests without the field, and their answers, pass byte for byte.
"""

import json
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.vllm_build import is_cpu_build
from engine.vllm_plugin.attribution import collecting, nexus_field
from engine.vllm_plugin.attribution.answers import Answer
from engine.vllm_plugin.attribution.collecting import Collector
from engine.vllm_plugin.attribution.experts import Experts, mix_of
from engine.vllm_plugin.attribution.nexus_field import FIELD, HEADER, READ, Refused

PATHS = ("/v1/completions", "/v1/chat/completions")
ON_CARDS = (
    "`nexus` is not there for models on a card: only on a CPU its answers are known to be right"
)


class NexusField:
    """Takes the field out of a request, and fills its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._experts: Experts | None = None
        self._is_ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if not self._is_ready:
            self._prepare(scope["app"].state)
        if scope["method"] != "POST" or scope["path"] not in PATHS:
            return await self._app(scope, receive, send)
        body = await _body(receive)
        request, field = _taken_out(body)
        if field is None:
            return await self._app(scope, _replay(body, receive), send)
        return await self._answer(scope, receive, send, request=request, field=field)

    def _prepare(self, state: Any) -> None:
        """Learn the experts, once, and tell them to the output processor."""
        mix = mix_of(state.vllm_config.model_config.hf_config)
        self._experts = Experts.of(mix) if mix is not None else None
        processor = state.engine_client.output_processor
        processor.experts = self._experts
        processor.model_name = state.vllm_config.model_config.served_model_name
        self._is_ready = True

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, *, request: dict[str, Any], field: Any
    ) -> None:
        try:
            if not is_cpu_build():
                raise Refused(ON_CARDS)
            asked = nexus_field.parse(field, request, self._experts)
        except Refused as refused:
            answer = JSONResponse(_error(refused), status_code=400, headers={HEADER: READ})
            return await answer(scope, receive, send)
        collector, sent = Collector(asked), _with_header(send)
        if asked.routing:
            assert self._experts is not None
            hides_ids = not request.get("return_token_ids")
            request |= {"return_token_ids": True}
            sent = Answer(sent, collector, self._experts, hides_ids=hides_ids).send
        body = json.dumps(request).encode()
        token = collecting.current.set(collector)
        try:
            await self._app(_with_length(scope, len(body)), _replay(body, receive), sent)
        finally:
            collecting.current.reset(token)


def _taken_out(body: bytes) -> tuple[dict[str, Any], Any]:
    """Return the request without the field, and the field; None if there is none."""
    if FIELD.encode() not in body:
        return {}, None
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return {}, None  # vLLM says what is wrong with it
    if not isinstance(request, dict):
        return {}, None
    return request, request.pop(FIELD, None)


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that has the whole body first."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _with_length(scope: Scope, length: int) -> Scope:
    others = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": [*others, (b"content-length", str(length).encode())]}


def _with_header(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (HEADER.encode(), READ.encode())]
            message = {**message, "headers": headers}
        await send(message)

    return sent


def _error(refused: Refused) -> dict[str, Any]:
    """Return an error as vLLM writes it."""
    kind = "BadRequestError"
    error = {"message": str(refused), "type": kind, "param": refused.param, "code": 400}
    return {"error": error}
