"""A small real server with enough of OpenAI's API to stand behind the gateway."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest

from engine.serving.tables import Deployment, DeploymentState
from registry.catalog import artifacts
from registry.database import db

WORDS = ["the", " mix", " speaks"]
# What vLLM says when the process that computes has ended.
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Upstream:
    """Records its requests and whether a client left. The prompt chooses how it behaves."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.began = threading.Event()
        self.left = threading.Event()
        self.go_on = threading.Event()
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.chat)
        self.app.post("/v1/completions")(self.complete)
        self.app.get("/metrics")(self.metrics)

    async def metrics(self) -> Response:
        """Answer with the number of requests, as engines do."""
        registry = CollectorRegistry()
        counter = Counter("vllm:asked", "Requests.", ["model_name"], registry=registry)
        counter.labels("tiny").inc(len(self.requests))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def chat(self, request: Request) -> Response:
        self.requests.append(request)
        body = await request.json()
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            return JSONResponse(_body(body, message=message, finish_reason="stop"))
        return StreamingResponse(
            self._stream(body, body["messages"][-1]["content"]), media_type="text/event-stream"
        )

    async def complete(self, request: Request) -> Response:
        self.requests.append(request)
        body = await request.json()
        if body["prompt"] == "too long":
            error = {"message": "16 tokens at most", "type": "BadRequestError", "param": None}
            return JSONResponse({"error": error | {"code": 400}}, status_code=400)
        if body["prompt"] == "die":
            error = {"message": DEAD, "type": "InternalServerError", "param": None}
            return JSONResponse({"error": error | {"code": 500}}, status_code=500)
        if body["prompt"] == "think":
            self.began.set()
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.left.set()
        return JSONResponse(_body(body, text="".join(WORDS), finish_reason="length"))

    async def _stream(self, body: dict[str, Any], spec: str) -> AsyncIterator[str]:
        if spec == "mute":
            await asyncio.Event().wait()
        for word in WORDS:
            yield f"data: {json.dumps(_body(body, delta={'content': word}))}\n\n"
        if spec == "die":
            yield 'data: {"half'
            raise ConnectionError("killed")
        if spec == "slow":
            await asyncio.to_thread(self.go_on.wait)
        if spec == "think":
            self.began.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        yield "data: [DONE]\n\n"


def _body(body: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk" if "delta" in choice else "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": None, **choice}],
    }


def deploy(
    model: str, state: DeploymentState, *, address: str | None = None, ref: str | None = None
) -> str:
    """Store a deployment; with `ref` it is a preview."""
    with db.transaction() as session:
        artifact = artifacts.register(
            session,
            manifest_digest="a" * 64,
            recipe={},
            recipe_digest="b" * 64,
            gate_report_digest="c" * 64,
        )
        row = Deployment(
            artifact_id=artifact.id if ref is None else None,
            ref=ref,
            manifest_digest=artifact.manifest_digest,
            model=model,
            state=state,
            address=address,
        )
        row.ready_at = datetime.now(UTC)
        session.add(row)
    return model
