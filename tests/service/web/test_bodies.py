"""Bodies that are too long or too slow are refused, whoever reads them."""

import pytest
from starlette.testclient import TestClient

from registry.settings import settings
from service.web import bodies
from tests.service.web.test_connections import answer, connected

ANNOUNCEMENTS = ["/api/v1/families", "/api/v1/experts/law/versions"]


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/v1/mixes", bodies.MAX_BODY_BYTES),
        ("/api/v1/families/f/policy", bodies.MAX_BODY_BYTES),
        *((path, bodies.MAX_ANNOUNCEMENT_BYTES) for path in ANNOUNCEMENTS),
        ("/v1/completions", 4 * 2**20),
        ("/login", bodies.MAX_BODY_BYTES),
    ],
)
def test_a_body_that_is_too_long_is_refused_before_it_is_read(
    client: TestClient, path: str, limit: int
) -> None:
    assert bodies.max_bytes(path) == limit
    headers = {"Content-Length": str(limit + 1), "Content-Type": "application/json"}
    if path == "/login":
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    method = "PUT" if path.endswith("policy") else "POST"
    refused = client.request(method, path, content=b"{}", headers=headers)
    assert refused.status_code == 413
    assert refused.headers["connection"] == "close"


def test_a_body_of_unknown_length_is_cut_off(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    monkeypatch.setenv("NEXUSMIX_MAX_PROMPT_BYTES", "1024")
    settings.cache_clear()
    headers = {"Content-Type": "application/json"}
    for path in ("/api/v1/mixes", "/v1/completions"):
        refused = client.post(path, content=iter([b" " * 600] * 2), headers=headers)
        assert refused.status_code == 413


def test_a_length_of_many_digits_is_too_long(client: TestClient) -> None:
    headers = {"Content-Length": "9" * 5000, "Content-Type": "application/json"}
    assert client.post("/api/v1/mixes", content=b"{}", headers=headers).status_code == 413


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_BODY_SECONDS", "0.2")
    settings.cache_clear()


@pytest.mark.parametrize(
    "line", ["POST /v1/chat/completions", "POST /api/v1/mixes", f"PUT /api/v1/blobs/{'a' * 64}"]
)
def test_a_body_that_stalls_is_refused(address: str, key: str, impatient: None, line: str) -> None:
    with connected(address) as connection:
        connection.sendall(
            f"{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\nhalf".encode()
        )
        refused = answer(connection)
    assert refused.startswith(b"HTTP/1.1 408 ")
    assert b"arrives too slowly" in refused
