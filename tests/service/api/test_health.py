"""The health check."""

from starlette.testclient import TestClient


def test_health_is_ok(anonymous: TestClient) -> None:
    assert anonymous.get("/health").json() == {"status": "ok"}
