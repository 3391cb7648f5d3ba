"""A small server in the place of an engine: it says fixed words, and who spoke each of them."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from playwright.sync_api import Locator, Page

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_plugin.attribution.nexus_field import HEADER, READ
from registry.blobs.blobs import BlobStore
from registry.database import db
from tests.assembler.published import publish
from tests.service.conftest import serving

Word = tuple[str, dict[str, Any]]

SHARED = "shared expert"
WORDS: list[Word] = [
    ("Fry ", {"expert-1": 0.7, "expert-2": 0.1, SHARED: 0.2}),
    ("the ", {"expert-1": 0.2, "expert-2": 0.2, SHARED: 0.6}),
    ("mast.", {"expert-1": 0.05, "expert-2": 0.9, SHARED: 0.05}),
]


class SpeakingEngine:
    """Says `words`, each with the weights of its token, and keeps the requests that it got.

    `refusal` is an error in the place of an answer. With `is_endless` an answer goes on until the
    client has gone.
    """

    def __init__(self, words: Sequence[Word]) -> None:
        self.words, self.requests = list(words), list[dict[str, Any]]()
        self.refusal: dict[str, Any] | None = None
        self.is_endless = False
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.chat)

    async def chat(self, request: Request) -> Response:
        asked = await request.json()
        self.requests.append(asked)
        if self.refusal is not None and (self.refusal["param"] != "nexus" or "nexus" in asked):
            return JSONResponse({"error": self.refusal}, status_code=400)
        events = self._events(tells=asked.get("nexus") is not None)
        headers = {HEADER: READ}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(self, *, tells: bool) -> AsyncIterator[str]:
        sums: dict[str, float] = {}
        for word, row in self.words:
            choice: dict[str, Any] = {"index": 0, "delta": {"content": word}}
            if tells:
                choice["logprobs"] = {"content": [{"token": word, "logprob": -0.25}]}
                choice["nexus"] = {"tokens": [row]}
                for name, weight in row.items():
                    share = sum(weight) / len(weight) if isinstance(weight, list) else weight
                    sums[name] = sums.get(name, 0) + share
            yield _event({"choices": [choice]})
        if self.is_endless:
            await anyio.sleep_forever()
        usage: dict[str, Any] = {"completion_tokens": len(self.words)}
        if tells:
            usage["nexus"] = {"completion_tokens": sums}
        yield _event({"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


@contextmanager
def speaking(words: Sequence[Word]) -> Iterator[tuple[SpeakingEngine, str]]:
    """Serve an engine; yields it with its address."""
    engine = SpeakingEngine(words)
    with serving(engine.app) as address:
        yield engine, address


def add_mix(store: BlobStore, *, name: str = "mine", address: str, preset: str = "nexus") -> None:
    """Publish a mix of the experts 1 and 2, and let the engine at an address answer for it."""
    experts = ["expert-1", "expert-2"]
    spec = NewMix(name=name, family="tiny", experts=experts, preset=preset)
    with db.transaction() as session:
        version = publish(session, store, mixes.request(session, store, spec))
        assert version.assembled_digest is not None
        row = Deployment(
            artifact_id=version.artifact_id,
            manifest_digest=version.assembled_digest,
            model=name,
            ref=f"{name}@{version.number}",
            state=DeploymentState.READY,
            address=address,
            ready_at=datetime.now(UTC),
        )
        session.add(row)


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def refusal(message: str, *, param: str) -> dict[str, Any]:
    return {"message": message, "type": "BadRequestError", "param": param, "code": 400}


def tokens(page: Page) -> Locator:
    return page.locator(".line.assistant .token")
