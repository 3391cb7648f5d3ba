"""The service says whether it can answer."""

from starlette.testclient import TestClient


def test_health(anonymous: TestClient) -> None:
    assert anonymous.get("/health").json() == {"status": "ok"}
