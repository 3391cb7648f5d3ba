"""Plans over HTTP."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore
from registry.database import db
from tests.assembler import rows

PLAN = "/api/v1/mixes:plan"
BODY: dict[str, Any] = {
    "name": "both",
    "family": "tiny",
    "experts": ["expert-1", "expert-2@1"],
    "finetune": {"tokens": 0},
}


@pytest.fixture(autouse=True)
def experts(store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)


def test_a_plan_changes_nothing(client: TestClient) -> None:
    answer = client.post(PLAN, json=BODY | {"deploy": True, "experts_per_token": 2})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["object"], plan["problems"], plan["license"]) == ("mix.plan", [], "Apache-2.0")
    assert plan["experts"] == ["expert-1@1", "expert-2@1"]
    assert [step["step"] for step in plan["size"]["steps"]] == ["assemble", "gate", "deploy"]
    assert plan["size"]["num_active_parameters"] == plan["size"]["num_parameters"]
    assert client.get("/api/v1/mixes").json()["data"] == []


def test_a_request_with_a_plan_without_problems_is_accepted(client: TestClient) -> None:
    body = BODY | {"preset": "btx"}
    assert client.post(PLAN, json=body).json()["problems"] == []
    mix = client.post("/api/v1/mixes", json=body)
    assert mix.status_code == 202, mix.text
    assert mix.json()["recipe"]["preset"] == "btx"
    assert client.post(PLAN, json=body).json()["existing"] == "both@1"


def test_every_problem_comes_in_one_answer(client: TestClient) -> None:
    wrong = {
        "name": "No Name",
        "experts": ["expert-1", "nobody"],
        "finetune": {"tokens": -1},
        "gates": {"served": {"min_equal_share": 2}},
        "combine": "product",
        "color": "red",
    }
    answer = client.post(PLAN, json=BODY | wrong)
    assert answer.status_code == 200
    assert {problem["pointer"] for problem in answer.json()["problems"]} == {
        "/name",
        "/experts/1",
        "/finetune/tokens",
        "/gates/served/min_equal_share",
        "/combine",
        "/color",
    }
    assert answer.json()["size"] is None
