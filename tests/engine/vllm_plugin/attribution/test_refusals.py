"""The middleware refuses what no engine can answer, before an engine is asked.

The application behind it is a small one, which answers everything.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from engine.vllm_plugin.attribution import middleware
from engine.vllm_plugin.attribution.middleware import NexusField
from engine.vllm_plugin.attribution.nexus_field import HEADER, READ
from engine.vllm_plugin.config import NexusConfig
from registry.checkpoints.architecture import Architecture
from tests import tiny
from tests.assembler.networks import NEXUS

PATH = "/v1/completions"


def client_of(a: Architecture) -> TestClient:
    """Return a client of an application that answers with the body that reached it."""
    app = FastAPI()
    config = SimpleNamespace(
        hf_config=NexusConfig.from_dict(a.to_config()), served_model_name="mix"
    )
    app.state.vllm_config = SimpleNamespace(model_config=config)
    app.state.engine_client = SimpleNamespace(output_processor=SimpleNamespace())
    app.add_middleware(NexusField)

    @app.post(PATH)
    async def complete(request: Request) -> dict[str, Any]:
        return {"body": (await request.body()).decode()}

    return TestClient(app)


def test_a_model_without_experts_refuses() -> None:
    client = client_of(tiny.ARCHITECTURE)
    refused = client.post(PATH, json={"nexus": {"routing": True}})
    assert refused.status_code == 400
    assert "`nexus` is for mixes" in refused.json()["error"]["message"]
    # The gateway knows by it that the field was read.
    assert refused.headers[HEADER] == READ


def test_a_model_on_a_card_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "is_cpu_build", lambda: False)
    refused = client_of(NEXUS).post(PATH, json={"nexus": {"disable": []}})
    assert refused.status_code == 400
    assert "on a card" in refused.json()["error"]["message"]


def test_the_error_names_the_wrong_part() -> None:
    error = client_of(NEXUS).post(PATH, json={"nexus": {"only": []}}).json()["error"]
    assert (error["param"], error["code"]) == ("nexus.only", 400)


@pytest.mark.parametrize(
    "body",
    [
        '{ "a":1}',
        '{"a": "nexus"}',
        '{"nexus":null}',
        '{"nexus"',
        '["nexus"]',
        '{"nexus":' + "[" * 100_000,
    ],
)
def test_what_has_no_field_passes_byte_for_byte(body: str) -> None:
    answer = client_of(NEXUS).post(PATH, content=body)
    assert answer.json() == {"body": body}
    assert HEADER not in answer.headers


def test_the_field_does_not_reach_the_engine() -> None:
    answer = client_of(NEXUS).post(PATH, json={"a": 1, "nexus": {"disable": ["expert-1"]}})
    assert answer.json() == {"body": '{"a": 1}'}
    assert answer.headers[HEADER] == READ
