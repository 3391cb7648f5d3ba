"""The gateway and the field `nexus`: both pass byte for byte, and an engine must have read it."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from engine.serving.tables import DeploymentState
from engine.vllm_plugin.attribution.nexus_field import HEADER, READ
from tests.service.conftest import serving
from tests.service.upstream import deploy

# Spaces and order are not those of Python's JSON.
ASKED = b'{ "nexus":{"only" : ["law"],"routing":true},"model":"mix", "prompt":"a" }'
ANSWER = b'{"choices":[{"index":0,"nexus":{"tokens":[{"law":0.50,"shared expert":0.5}]} }] }'
EVENTS = b"data: " + ANSWER + b"\n\ndata: [DONE]\n\n"


class Engine:
    """Answers every request in the same way, and keeps the bodies that it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers = {HEADER: READ}
        self.status, self.answer, self.media_type = 200, ANSWER, "application/json"
        self.app = FastAPI()
        self.app.post("/v1/completions")(self.complete)

    async def complete(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return Response(self.answer, self.status, self.headers, self.media_type)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = Engine()
    with serving(engine.app) as address:
        deploy("mix", DeploymentState.READY, address=address)
        yield engine


def ask(address: str, key: str, body: bytes = ASKED) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{address}/v1/completions", content=body, headers=headers)


@pytest.mark.parametrize(
    ("answer", "media_type"), [(ANSWER, "application/json"), (EVENTS, "text/event-stream")]
)
def test_the_field_passes_byte_for_byte(
    engine: Engine, address: str, key: str, answer: bytes, media_type: str
) -> None:
    engine.answer, engine.media_type = answer, media_type
    got = ask(address, key)
    assert engine.bodies == [ASKED]
    assert got.content == answer
    # For the service of another host, which asks here.
    assert got.headers[HEADER] == READ


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream"])
def test_an_engine_that_does_not_know_the_field_is_an_error(
    engine: Engine, address: str, key: str, media_type: str
) -> None:
    engine.headers, engine.media_type = {}, media_type
    refused = ask(address, key)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], "too old to know `nexus`" in error["message"]) == ("nexus", True)


def test_responses_do_not_take_the_field(engine: Engine, address: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    refused = httpx.post(f"{address}/v1/responses", content=ASKED, headers=headers)
    assert refused.status_code == 400
    assert "ask `/v1/chat/completions`" in refused.json()["error"]["message"]
    assert engine.bodies == []


def test_requests_without_the_field_need_no_engine_that_knows_it(
    engine: Engine, address: str, key: str
) -> None:
    engine.headers = {}
    for body in (b'{"model": "mix"}', b'{"model": "mix", "nexus": null}'):
        assert ask(address, key, body).content == ANSWER


def test_errors_of_an_engine_are_its_own(engine: Engine, address: str, key: str) -> None:
    engine.headers, engine.status, engine.answer = {}, 400, b'{"error":{"message":"too long"}}'
    assert ask(address, key).content == engine.answer
