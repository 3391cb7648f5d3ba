"""Request ids, headers, log and metrics."""

import logging

import pytest
from starlette.testclient import TestClient


def test_answers_carry_an_id_and_safe_headers(client: TestClient) -> None:
    answer = client.get("/api/v1/experts", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_an_unsafe_id_is_replaced(client: TestClient) -> None:
    answer = client.get("/api/v1/nothing", headers={"X-Request-Id": "a b\tc"})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != "a b\tc"


def test_keys_are_not_logged(
    anonymous: TestClient, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    authorization = {"Authorization": f"Bearer {key}"}
    path = anonymous.post("/api/v1/sign-in-links", headers=authorization).json()["path"]
    anonymous.get(path)
    anonymous.get("/api/v1/experts", params={"q": key})
    anonymous.post("/login", data={"key": key})
    secrets = (key, path.partition("=")[2], *anonymous.cookies.values())
    # The test client logs too; look at the service's lines only.
    lines = [r.getMessage() for r in caplog.records if not r.name.startswith("httpx")]
    assert any("/sign-in" in line for line in lines)
    assert not [secret for secret in secrets if any(secret in line for line in lines)]


def test_requests_are_counted(client: TestClient) -> None:
    client.get("/api/v1/experts/nobody")
    text = client.get("/metrics").text
    assert 'route="/api/v1/experts/{name}",status="404"' in text
