"""Signing in by key and by link, and signing out. The browser never holds the key."""

import pytest
from starlette.testclient import TestClient

from registry.database import db
from service import keys, sessions
from service.tables import BrowserSession
from tests.service.conftest import ADDRESS

OWN = {"Origin": ADDRESS}
PAGE = "/experts"


def shows_a_page(client: TestClient) -> bool:
    return client.get(PAGE, follow_redirects=False).status_code == 200


@pytest.fixture
def word(key: str) -> str:
    with db.transaction() as session:
        return sessions.create_link(session, keys.find(session, key).id).word


def test_a_key_begins_a_session(anonymous: TestClient, key: str) -> None:
    assert not shows_a_page(anonymous)
    answer = anonymous.post(
        "/login", data={"key": f" {key} ", "next": "/mixes"}, headers=OWN, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/mixes")
    cookie = answer.headers["set-cookie"]
    assert key not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert "max-age=604800" in cookie.lower()
    assert shows_a_page(anonymous)


@pytest.mark.parametrize(
    "next", ["//elsewhere.example/", "/\\elsewhere.example", "https://x.example"]
)
def test_signing_in_leads_to_no_other_site(anonymous: TestClient, key: str, next: str) -> None:
    answer = anonymous.post(
        "/login", data={"key": key, "next": next}, headers=OWN, follow_redirects=False
    )
    assert answer.headers["location"] == "/"


def test_a_wrong_key_is_refused(anonymous: TestClient) -> None:
    answer = anonymous.post("/login", data={"key": "nxm_wrong"}, headers=OWN)
    assert answer.status_code == 401
    assert "This is no API key" in answer.text
    assert "set-cookie" not in answer.headers


def test_another_page_signs_nobody_in(anonymous: TestClient, key: str) -> None:
    """Otherwise it could let a visitor work under the key of somebody else."""
    for origin in ("https://evil.example", "http://127.0.0.1:3000", ""):
        answer = anonymous.post("/login", data={"key": key}, headers={"Origin": origin})
        assert answer.status_code == 401
    assert not shows_a_page(anonymous)


def test_a_link_signs_in_once(anonymous: TestClient, word: str) -> None:
    answer = anonymous.get(f"/sign-in?word={word}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert word not in answer.headers["set-cookie"]
    assert shows_a_page(anonymous)
    anonymous.cookies.clear()
    again = anonymous.get(f"/sign-in?word={word}")
    assert again.status_code == 401
    assert "used already" in again.text
    assert not shows_a_page(anonymous)


def test_a_key_in_an_address_signs_nobody_in(anonymous: TestClient, key: str) -> None:
    for path in ("/login", "/sign-in"):
        anonymous.get(path, params={"key": key, "word": key})
        assert not shows_a_page(anonymous)


def test_signing_out_ends_the_session_on_the_server_too(anonymous: TestClient, key: str) -> None:
    anonymous.post("/login", data={"key": key}, headers=OWN)
    name, kept = next(iter(anonymous.cookies.items()))
    left = anonymous.post("/logout", headers=OWN, follow_redirects=False)
    assert left.headers["location"] == "/login"
    assert not anonymous.cookies
    with db.transaction() as session:
        assert session.query(BrowserSession).count() == 0
    anonymous.cookies.set(name, kept)
    assert not shows_a_page(anonymous)


def test_another_page_signs_nobody_out(anonymous: TestClient, key: str) -> None:
    anonymous.post("/login", data={"key": key}, headers=OWN)
    assert anonymous.post("/logout", headers={"Origin": "https://evil.example"}).status_code == 401
    assert shows_a_page(anonymous)


def test_a_cookie_is_for_https_only_where_the_page_is(anonymous: TestClient, word: str) -> None:
    anonymous.base_url = "https://127.0.0.1"
    answer = anonymous.get(f"/sign-in?word={word}", follow_redirects=False)
    assert "; secure" in answer.headers["set-cookie"].lower()
