"""Changing a finished mix over HTTP, and presets.

Covers: presets.
"""

from typing import Any

import pytest
from starlette.testclient import TestClient

from assembler.mixes import mixes
from registry.blobs.blobs import BlobStore
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import publish

MIXES = "/api/v1/mixes"
BASE = f"{MIXES}/both/versions/1"


@pytest.fixture(autouse=True)
def base(client: TestClient, store: BlobStore) -> None:
    """Return `both@1`, published, of the experts 1 and 2; register an expert 3."""
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=3)
    body = {"name": "both", "family": "tiny", "experts": ["expert-1", "expert-2"]}
    client.post(MIXES, json=body)
    with db.transaction() as session:
        publish(session, store, mixes.get(session, "both@1"))


@pytest.mark.parametrize(
    ("change", "body", "experts"),
    [
        ("extend", {"expert": "expert-3"}, ["expert-1@1", "expert-2@1", "expert-3@1"]),
        ("replace", {"expert": "expert-1", "by": "expert-3"}, ["expert-3@1", "expert-2@1"]),
    ],
)
def test_a_change_makes_a_new_version(
    client: TestClient, change: str, body: dict[str, Any], experts: list[str]
) -> None:
    body |= {"finetune": {"tokens": 0}, "name": "other"}
    answer = client.post(f"{BASE}/{change}", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{MIXES}/other/versions/1"
    mix = client.get(answer.headers["location"]).json()
    assert mix == answer.json()
    assert (mix["base"], mix["preset"]) == ("both@1", "nexus")
    assert mix["recipe"]["experts"] == experts
    assert mix["recipe"]["finetune"]["tokens"] == 0


def test_a_repeated_request_gets_the_first_answer(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post(f"{BASE}/extend", json={"expert": "expert-3"}, headers=headers)
    again = client.post(f"{BASE}/extend", json={"expert": "expert-3"}, headers=headers)
    assert again.json() == first.json()
    assert first.json()["ref"] == "both@2"


@pytest.mark.parametrize(
    ("change", "body", "pointer"),
    [
        ("extend", {"expert": "nobody"}, "/expert"),
        ("extend", {"expert": "expert-1"}, "/expert"),
        ("extend", {"expert": "expert-3", "finetune": {"tokens": -1}}, "/finetune/tokens"),
        ("extend", {"expert": "expert-3", "gates": {"served": {"min_fdt_75": 99}}}, "/gates"),
        ("extend", {"expert": "expert-3", "combine": "sum"}, "/combine"),
        ("extend", {"expert": "expert-3", "name": "No Name"}, "/name"),
        ("remove", {"expert": "expert-1"}, "/expert"),
        ("remove", {"expert": "expert-3"}, "/expert"),
        ("replace", {"expert": "expert-1", "by": "expert-2"}, "/by"),
    ],
)
def test_a_wrong_change_names_the_field(
    client: TestClient, change: str, body: dict[str, Any], pointer: str
) -> None:
    answer = client.post(f"{BASE}/{change}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    plan = client.post(f"{BASE}/{change}:plan", json=body)
    assert plan.json()["problems"] == answer.json()["errors"]


@pytest.mark.parametrize(
    ("change", "body", "pointer"),
    [("extend", {}, "/expert"), ("replace", {"expert": "expert-1"}, "/by")],
)
def test_a_change_must_name_its_experts(
    client: TestClient, change: str, body: dict[str, Any], pointer: str
) -> None:
    for path in (change, f"{change}:plan"):
        answer = client.post(f"{BASE}/{path}", json=body)
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ("extend", {"expert": "expert-3", "deploy": True}),
        ("replace", {"expert": "expert-1", "by": "expert-3"}),
    ],
)
def test_a_change_is_planned_with_the_same_body(
    client: TestClient, change: str, body: dict[str, Any]
) -> None:
    plan = client.post(f"{BASE}/{change}:plan", json=body).json()
    assert (plan["object"], plan["problems"], plan["existing"]) == ("mix.plan", [], None)
    made = client.post(f"{BASE}/{change}", json=body).json()
    assert plan["experts"] == made["recipe"]["experts"]
    assert client.post(f"{BASE}/{change}:plan", json=body).json()["existing"] == made["ref"]


def test_an_unfinished_mix_cannot_be_changed(client: TestClient) -> None:
    client.post(f"{BASE}/extend", json={"expert": "expert-3"})
    answer = client.post(f"{MIXES}/both/versions/2/remove", json={"expert": "expert-1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert client.post(f"{MIXES}/who/versions/1/remove", json={"expert": "x"}).status_code == 404


def test_a_change_needs_a_key(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.post(f"{BASE}/extend", json={"expert": "expert-3"}).status_code == 401


def test_presets_list_their_fields(client: TestClient) -> None:
    presets = {preset["name"]: preset for preset in client.get("/api/v1/presets").json()["data"]}
    assert presets["btx"]["assembly"]["experts_per_token"] == 2
    assert presets["merge"]["tokens_per_expert"] == 0 < presets["nexus"]["tokens_per_expert"]
    assert "tokens" not in presets["nexus"]["finetune"]
    assert all(preset["description"] for preset in presets.values())
    assert presets["nexus"]["changed"] == {}
    assert presets["mlp"]["changed"] == {"router": "mlp", "router_init": "random"}
    assert presets["merge"]["changed"]["finetune.tokens"] == 0


@pytest.mark.parametrize(
    ("change", "pointer"),
    [({"preset": "nexuss"}, "/preset"), ({"shared_expert": False}, "/combine")],
)
def test_impossible_recipes_are_refused(
    client: TestClient, change: dict[str, Any], pointer: str
) -> None:
    body = {"name": "new", "family": "tiny", "experts": ["expert-1", "expert-2"]}
    answer = client.post(MIXES, json=body | change)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
