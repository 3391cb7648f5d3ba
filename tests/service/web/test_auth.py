"""Which requests are accepted, by key, by session and by origin."""

from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from registry import settings
from registry.database import db
from service import keys, sessions
from service.app import create_app
from service.scopes import Scope
from tests.service.conftest import ADDRESS

DELETE = "/api/v1/deployments/1"
EXPERTS = "/api/v1/experts"
# The port of the tests' address is the default one of http.
COOKIE = "nexusmix_session_http"


@pytest.fixture
def session_id(key: str) -> str:
    with db.transaction() as session:
        return sessions.begin(session, keys.find(session, key).id)


@pytest.fixture
def open_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_ANONYMOUS_READ", "1")
    settings.settings.cache_clear()


def test_reading_needs_a_key(anonymous: TestClient, key: str) -> None:
    for path in (EXPERTS, "/metrics"):
        assert anonymous.get(path).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert anonymous.get(path, headers=headers).status_code == 200


@pytest.mark.usefixtures("open_reading")
def test_a_setting_opens_reading_only(anonymous: TestClient) -> None:
    assert anonymous.get(EXPERTS).status_code == 200
    assert anonymous.get("/metrics").status_code == 200
    assert anonymous.delete(DELETE).status_code == 401
    assert anonymous.get("/v1/models").status_code == 401
    assert anonymous.get("/api/v1/keys").status_code == 401
    assert anonymous.get("/experts", follow_redirects=False).status_code == 303


@pytest.mark.usefixtures("open_reading")
@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Anything",
        "Forwarded",
        "Via",
        "X-Real-IP",
    ],
)
def test_a_forwarded_request_needs_a_key_all_the_same(
    anonymous: TestClient, key: str, header: str
) -> None:
    """A proxy on this machine would open it to everybody."""
    forwarded = {header: "203.0.113.7"}
    answer = anonymous.get(EXPERTS, headers=forwarded)
    assert answer.status_code == 401
    assert header.lower() in answer.json()["detail"]
    headers = forwarded | {"Authorization": f"Bearer {key}"}
    assert anonymous.get(EXPERTS, headers=headers).status_code == 200


@pytest.mark.usefixtures("open_reading")
def test_a_wrong_key_is_refused_where_none_is_needed(anonymous: TestClient) -> None:
    headers = {"Authorization": "Bearer nxm_mistyped"}
    assert anonymous.get(EXPERTS, headers=headers).status_code == 401


def test_other_hosts_are_served_with_a_key(
    database: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_HOST", "0.0.0.0")
    settings.settings.cache_clear()
    with TestClient(create_app(), base_url="http://mixes.example") as client:
        assert client.get(EXPERTS).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert client.get(EXPERTS, headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nxm_wrong", "Basic bnhtOg=="])
def test_writing_needs_a_key(anonymous: TestClient, header: str) -> None:
    answer = anonymous.delete(DELETE, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthenticated"


def test_a_session_writes_from_our_own_pages_only(anonymous: TestClient, session_id: str) -> None:
    anonymous.cookies.set(COOKIE, session_id)
    assert anonymous.delete(DELETE, headers={"Origin": ADDRESS}).status_code == 404
    # For a browser's SameSite rule this is the same site, but it is another server.
    for origin in ("http://127.0.0.1:3000", "https://evil.example", "null", ""):
        assert anonymous.delete(DELETE, headers={"Origin": origin}).status_code == 401
    assert anonymous.delete(DELETE).status_code == 401


def test_a_key_in_a_cookie_and_a_session_as_a_token_are_nothing(
    anonymous: TestClient, key: str, session_id: str
) -> None:
    headers = {"Authorization": f"Bearer {session_id}"}
    assert anonymous.get(EXPERTS, headers=headers).status_code == 401
    for name in (COOKIE, "nexusmix_key"):
        anonymous.cookies.set(name, key)
        assert anonymous.get(EXPERTS).status_code == 401


def test_a_session_belongs_to_one_port(anonymous: TestClient, session_id: str) -> None:
    """Browsers send cookies to all ports of a host: another service must not see its session."""
    anonymous.cookies.set(COOKIE, session_id)
    assert anonymous.get(EXPERTS).status_code == 200
    assert anonymous.get(EXPERTS, headers={"Host": "127.0.0.1:9000"}).status_code == 401
    anonymous.cookies.set("nexusmix_session_9000", session_id)
    assert anonymous.get(EXPERTS, headers={"Host": "127.0.0.1:9000"}).status_code == 200


def test_a_remembered_key_ends_at_its_time(anonymous: TestClient, key: str) -> None:
    """The gateway remembers who sends a key."""
    headers = {"Authorization": f"Bearer {key}"}
    assert anonymous.get("/v1/models", headers=headers).status_code == 200
    with db.transaction() as session:
        keys.find(session, key).expires_at = datetime.now(UTC)
    [entry] = anonymous.app.state.callers._entries.values()  # type: ignore[attr-defined]  # any app
    entry.value = keys.Caller(1, "tests", entry.value.scopes, expires_at=datetime.now(UTC))
    answer = anonymous.get("/v1/models", headers=headers)
    assert answer.status_code == 401
    assert "expired" in answer.json()["error"]["message"]


def test_serving_a_mix_needs_the_scope_for_it(anonymous: TestClient) -> None:
    """A key that may request mixes but not serve them cannot have one served either."""
    with db.transaction() as session:
        key = keys.create_key(session, name="builder", scopes=[Scope.PUBLISH, Scope.READ])
        session_id = sessions.begin(session, keys.find(session, key).id)
    body = {"name": "both", "family": "tiny", "experts": ["a", "b"], "deploy": True}
    headers = {"Authorization": f"Bearer {key}"}
    answer = anonymous.post("/api/v1/mixes", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert anonymous.post("/api/v1/mixes", json=body | {"deploy": False}, headers=headers).is_error
    anonymous.cookies.set(COOKIE, session_id)
    own = {"Origin": ADDRESS}
    for path in ("/mixes", "/mixes/both@1/revise"):
        assert anonymous.post(path, data={"deploy": "true"}, headers=own).status_code == 403


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.evil.example", ""])
def test_other_host_names_are_refused(anonymous: TestClient, host: str) -> None:
    answer = anonymous.get(EXPERTS, headers={"Host": host})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert "Host header" in answer.json()["detail"]
    on_openai = anonymous.get("/v1/models", headers={"Host": host})
    assert on_openai.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("host", ["localhost:8421", "127.0.0.1:8421", "[::1]:8421", "LOCALHOST"])
def test_our_own_names_are_accepted(client: TestClient, host: str) -> None:
    assert client.get(EXPERTS, headers={"Host": host}).status_code == 200
