"""Request ids, headers, log and metrics."""

import logging

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
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


def test_a_request_is_a_span_of_its_callers_trace(
    client: TestClient, spans: InMemorySpanExporter
) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.get("/api/v1/experts/nobody", headers={"traceparent": caller})
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /api/v1/experts/{name}"
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 404
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" in caller


def test_traces_have_no_query(client: TestClient, spans: InMemorySpanExporter) -> None:
    client.get("/sign-in", params={"token": "secret"})
    assert spans.get_finished_spans()
    assert not [span for span in spans.get_finished_spans() if "secret" in span.to_json()]
