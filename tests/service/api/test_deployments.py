"""Requesting and stopping deployments; the agent carries them out.

Covers: service.schemas.deployments.
"""

import pytest
from starlette.testclient import TestClient

from registry.catalog import artifacts
from registry.database import db

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


def test_an_unknown_deployment_is_not_found(client: TestClient) -> None:
    assert client.get(f"{DEPLOYMENTS}/7").status_code == 404
    assert client.delete(f"{DEPLOYMENTS}/7").status_code == 404
    assert client.get(f"{DEPLOYMENTS}/x").status_code == 422
