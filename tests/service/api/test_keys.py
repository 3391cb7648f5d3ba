"""Keys and sign-in links over HTTP.

Covers: service.schemas.keys.
"""

from datetime import UTC, datetime, timedelta

from starlette.testclient import TestClient

from registry.database import db
from service.tables import ApiKey, IdempotentRequest

KEYS = "/api/v1/keys"


def test_a_key_is_shown_once(client: TestClient) -> None:
    expires = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    made = client.post(
        KEYS, json={"name": "app", "scopes": ["infer", "infer"], "expires_at": expires}
    )
    assert made.status_code == 201
    key = made.json()["key"]
    listed = client.get(KEYS)
    assert key not in listed.text
    newest = listed.json()["data"][0]
    assert newest == {name: value for name, value in made.json().items() if name != "key"}
    assert (newest["name"], newest["scopes"]) == ("app", ["infer"])
    assert datetime.fromisoformat(newest["expires_at"]) == datetime.fromisoformat(expires)


def test_a_new_key_reads_and_infers(client: TestClient) -> None:
    made = client.post(KEYS, json={"name": "app"}).json()
    assert made["scopes"] == ["infer", "read"]
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.get("/api/v1/experts", headers=headers).status_code == 200
    assert client.get(KEYS, headers=headers).status_code == 403
    used = {row["name"]: row["last_used_at"] for row in client.get(KEYS).json()["data"]}
    assert used["app"] is not None


def test_a_repeated_request_stores_no_key(client: TestClient) -> None:
    client.post(KEYS, json={"name": "app"}, headers={"Idempotency-Key": "once"})
    with db.transaction() as session:
        assert session.query(IdempotentRequest).count() == 0


def test_a_revoked_key_is_refused(client: TestClient) -> None:
    made = client.post(KEYS, json={"name": "app"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert client.get("/api/v1/experts", headers=headers).status_code == 200
    for _ in range(2):
        revoked = client.delete(f"{KEYS}/{made['id']}")
        assert (revoked.status_code, revoked.json()["revoked_at"] is not None) == (200, True)
    refused = client.get("/api/v1/experts", headers=headers)
    assert refused.status_code == 401
    assert "revoked" in refused.json()["detail"]
    assert client.delete(f"{KEYS}/999").status_code == 404


def test_wrong_requests_are_refused(client: TestClient) -> None:
    for body, pointer in (
        ({"name": "My key"}, "/name"),
        ({"name": "app", "scopes": []}, "/scopes"),
        ({"name": "app", "scopes": ["fly"]}, "/scopes/0"),
        ({"name": "app", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "app", "expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        # In UTC this is the year 10,000, which nothing here could read again.
        ({"name": "app", "expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
    ):
        answer = client.post(KEYS, json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer
    with db.transaction() as session:
        assert session.query(ApiKey).count() == 1


def test_a_link_signs_in_with_the_key_that_asks(client: TestClient) -> None:
    link = client.post("/api/v1/sign-in-links").json()
    del client.headers["Authorization"]
    assert client.get("/experts", follow_redirects=False).status_code == 303
    client.get(link["path"], follow_redirects=False)
    assert client.get("/experts", follow_redirects=False).status_code == 200
