"""Requesting and stopping deployments; the agent carries them out.

Covers: service.schemas.deployments, service.web.engine_options.
"""

import pytest
from starlette.testclient import TestClient

from registry.blobs import blob_stores
from registry.catalog import artifacts
from registry.database import db
from tests.engine.factories import make_artifact

DEPLOYMENTS = "/api/v1/deployments"


@pytest.fixture
def artifact(client: TestClient) -> int:
    with db.transaction() as session:
        return artifacts.register(
            session,
            manifest_digest="a" * 64,
            recipe={},
            recipe_digest="b" * 64,
            gate_report_digest="c" * 64,
        ).id


@pytest.fixture
def served(client: TestClient) -> int:
    """Return an artifact whose bytes are in the store."""
    with db.transaction() as session:
        return make_artifact(session, blob_stores.store()).id


def test_a_deployment_is_requested_and_stopped(client: TestClient, artifact: int) -> None:
    answer = client.post(DEPLOYMENTS, json={"artifact": artifact, "model": "both"})
    assert (answer.status_code, answer.json()["state"]) == (202, "requested")
    location = answer.headers["location"]
    assert client.get(location).json() == answer.json()
    assert client.get(DEPLOYMENTS).json()["data"] == [answer.json()]
    for _ in range(2):
        assert client.delete(location).json()["state"] == "stopped"


def test_a_wrong_deployment_is_refused(client: TestClient, artifact: int) -> None:
    answer = client.post(DEPLOYMENTS, json={"artifact": artifact + 1, "model": "both"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/artifact")
    answer = client.post(DEPLOYMENTS, json={"artifact": artifact, "model": "a b"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/model")


def test_options_are_requested_changed_and_kept(client: TestClient, served: int) -> None:
    options = {"context": 128, "engine_args": {"max_num_seqs": 4}}
    body = {"artifact": served, "model": "both", "options": options}
    answer = client.post(DEPLOYMENTS, json=body)
    assert answer.status_code == 202, answer.text
    shown = answer.json()["options"]
    assert (shown["context"], shown["dtype"]) == (128, None)
    assert shown["engine_args"]["max_num_seqs"] == 4
    # Without a word about options the present ones stay, and nothing changes.
    kept = client.post(DEPLOYMENTS, json={"artifact": served, "model": "both"})
    assert kept.json() == answer.json()

    changed = client.patch(answer.headers["location"], json={"options": {"dtype": "bfloat16"}})
    assert changed.status_code == 202, changed.text
    assert changed.json()["id"] != answer.json()["id"]
    assert (changed.json()["options"]["context"], changed.json()["options"]["dtype"]) == (
        None,
        "bfloat16",
    )
    assert client.get(changed.headers["location"]).json() == changed.json()


def test_one_answer_names_every_option_that_does_not_fit(client: TestClient, served: int) -> None:
    options = {
        "context": 4096,
        "dtype": "int4",
        "tool_parser": "hermess",
        "chat_template": "{% for m in messages %}",
        "engine_args": {"max_num_seqs": 0, "model": "/etc"},
        "speed": 9,
    }
    body = {"artifact": served, "model": "both", "options": options}
    answer = client.post(DEPLOYMENTS, json=body)
    assert answer.status_code == 422
    wrong = {each["pointer"]: each["detail"] for each in answer.json()["errors"]}
    assert wrong.keys() == {
        "/options/context",
        "/options/dtype",
        "/options/tool_parser",
        "/options/chat_template",
        "/options/engine_args/max_num_seqs",
        "/options/engine_args/model",
        "/options/speed",
    }
    assert wrong["/options/context"] == "is 4096, the model has a context of 256"
    assert wrong["/options/dtype"].startswith("is 'int4': Input should be 'float32', 'bfloat16'")
    assert wrong["/options/engine_args/max_num_seqs"].startswith("is 0: ")
    assert "there are max_num_seqs, " in wrong["/options/engine_args/model"]
    assert wrong["/options/chat_template"].startswith("does not parse: line 1")
    assert client.get(DEPLOYMENTS).json()["data"] == []


def test_a_repeated_request_with_options_is_one_deployment(client: TestClient, served: int) -> None:
    body = {"artifact": served, "model": "both", "options": {"context": 128}}
    headers = {"Idempotency-Key": "once"}
    answers = [client.post(DEPLOYMENTS, json=body, headers=headers).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(client.get(DEPLOYMENTS).json()["data"]) == 1


def test_an_unknown_deployment_is_not_found(client: TestClient) -> None:
    assert client.get(f"{DEPLOYMENTS}/7").status_code == 404
    assert client.delete(f"{DEPLOYMENTS}/7").status_code == 404
    assert client.patch(f"{DEPLOYMENTS}/7", json={"options": {}}).status_code == 404
    assert client.get(f"{DEPLOYMENTS}/x").status_code == 422
