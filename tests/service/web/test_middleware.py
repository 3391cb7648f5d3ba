"""Request ids, headers, body limit, log and metrics."""

import logging

import pytest
from starlette.testclient import TestClient

from service.web import middleware


def test_answers_carry_an_id_and_safe_headers(client: TestClient) -> None:
    answer = client.get("/api/v1/experts", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_an_unsafe_id_is_replaced(client: TestClient) -> None:
    answer = client.get("/api/v1/nothing", headers={"X-Request-Id": "a b\tc"})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != "a b\tc"


def test_a_body_that_is_too_long_is_refused_before_it_is_read(client: TestClient) -> None:
    headers = {"Content-Length": str(middleware.MAX_BODY_BYTES + 1)}
    answer = client.post("/api/v1/mixes", content=b"{}", headers=headers)
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


def test_a_body_of_unknown_length_is_cut_off(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_BODY_BYTES", 1000)
    answer = client.post("/api/v1/mixes", content=iter([b" " * 600] * 2))
    assert answer.status_code == 413
    assert client.post("/v1/completions", content=iter([b" " * 600] * 2)).status_code == 413


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
