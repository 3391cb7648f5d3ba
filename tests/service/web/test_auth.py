"""Which requests are accepted, by key, by cookie and by origin."""

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from registry import settings
from registry.errors import Unauthenticated
from service import keys
from service.app import create_app
from service.tables import ApiKey
from service.web import auth

DELETE = "/api/v1/deployments/1"


def test_unknown_and_revoked_keys_are_refused(session: Session) -> None:
    key = keys.create_key(session, name="me")
    session.query(ApiKey).one().revoked_at = session.query(ApiKey).one().created_at
    session.flush()
    for refused in (key, "nxm_guess", ""):
        with pytest.raises(Unauthenticated):
            auth.caller_of(session, refused)


def test_reading_is_open_on_loopback(anonymous: TestClient) -> None:
    assert anonymous.get("/api/v1/experts").status_code == 200


def test_reading_needs_a_key_elsewhere(
    database: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_HOST", "0.0.0.0")
    settings.settings.cache_clear()
    with TestClient(create_app(), base_url="http://mixes.example") as client:
        assert client.get("/api/v1/experts").status_code == 401
        assert client.get("/metrics").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert client.get("/api/v1/experts", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nxm_wrong", "Basic bnhtOg=="])
def test_writing_needs_a_key(anonymous: TestClient, header: str) -> None:
    answer = anonymous.delete(DELETE, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthenticated"


def test_a_cookie_writes_from_our_own_pages_only(anonymous: TestClient, key: str) -> None:
    anonymous.cookies.set(auth.COOKIE, key)
    assert anonymous.delete(DELETE, headers={"Origin": "http://127.0.0.1"}).status_code == 404
    # For a browser's SameSite rule this is the same site, but it is another server.
    for origin in ("http://127.0.0.1:3000", "https://evil.example", "null", ""):
        assert anonymous.delete(DELETE, headers={"Origin": origin}).status_code == 401
    assert anonymous.delete(DELETE).status_code == 401


def test_the_cookie_is_for_our_own_pages_only(anonymous: TestClient, key: str) -> None:
    answer = anonymous.post("/login", data={"key": key}, follow_redirects=False)
    attributes = answer.headers["set-cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=strict" in attributes


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.evil.example", ""])
def test_other_host_names_are_refused(anonymous: TestClient, host: str) -> None:
    answer = anonymous.get("/api/v1/experts", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert "Host header" in answer.json()["detail"]
    on_openai = anonymous.get("/v1/models", headers={"Host": host})
    assert on_openai.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("host", ["localhost:8421", "127.0.0.1:8421", "[::1]:8421", "LOCALHOST"])
def test_our_own_names_are_accepted(anonymous: TestClient, host: str) -> None:
    assert anonymous.get("/api/v1/experts", headers={"Host": host}).status_code == 200
