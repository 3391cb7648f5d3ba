"""Requests are admitted in order: key and permission, body, rate."""

from hashlib import sha256

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import event
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore
from registry.database import db
from registry.errors import TooManyRequests
from registry.settings import settings
from service.web import admission, checked_routes
from service.web.admission import Rate, Slots, asked_before_body
from tests.assembler import rows
from tests.service.web.test_connections import answer, connected

JSON = {"Content-Type": "application/json"}
# What anybody may send: a key to sign in with.
OPEN = {"/login", "/logout"}


def test_every_route_with_a_body_asks_before_it_reads(app: FastAPI) -> None:
    """A new dependency for keys or permissions that is not marked with `before_body` fails here."""
    forgotten = [
        route.path
        for route in app.routes
        if isinstance(route, APIRoute)
        and route.methods - {"GET", "HEAD"}
        and route.path not in OPEN
        and not asked_before_body(route.dependant)
    ]
    assert forgotten == []


@pytest.mark.parametrize("path", ["/api/v1/mixes", "/v1/chat/completions"])
def test_the_key_comes_before_the_body(anonymous: TestClient, path: str) -> None:
    assert anonymous.post(path, content=b"[" * 100_000, headers=JSON).status_code == 401


def test_nothing_of_a_body_is_awaited_without_a_key(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(
            b"POST /api/v1/mixes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert answer(connection).startswith(b"HTTP/1.1 401 ")


def test_the_body_comes_before_the_rate(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_routes, "_rate", Rate())
    monkeypatch.setenv("NEXUSMIX_MAX_REQUESTS_PER_SECOND", "0.1")
    settings.cache_clear()
    assert client.get("/v1/models").status_code == 200
    assert client.post("/api/v1/mixes", content=b"{", headers=JSON).status_code == 422
    refused = client.delete("/api/v1/deployments/1")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert "retry-after" in refused.headers
    on_openai = client.get("/v1/models")
    assert on_openai.json()["error"]["code"] == "rate_limit_exceeded"


def test_two_seconds_of_requests_may_come_at_once() -> None:
    rate = Rate()
    # Slow enough that none is earned back meanwhile.
    rate.count("me", per_second=0.01)
    with pytest.raises(TooManyRequests, match=r"more than 0\.01 requests a second"):
        rate.count("me", per_second=0.01)
    rate.count("you", per_second=0.01)
    for _ in range(100):
        rate.count("fast", per_second=1000)


def test_the_rate_of_few_keys_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_KEYS", 3)
    rate = Rate()
    for sender in range(10):
        rate.count(sender, per_second=1)
    assert len(rate._due) == 3


def test_slots_are_given_back() -> None:
    slots = Slots("uploads")
    with slots.held("me", most=1), slots.held("you", most=1), pytest.raises(TooManyRequests):
        slots.held("me", most=1).__enter__()
    with slots.held("me", most=1):
        pass


def test_a_request_never_holds_two_connections(client: TestClient, store: BlobStore) -> None:
    """With two for each, requests that all hold one would wait for each other."""
    with db.transaction() as session:
        rows.add_all(session, store)
    held = most = 0

    def note_checkout(*_: object) -> None:
        nonlocal held, most
        held += 1
        most = max(most, held)

    def note_checkin(*_: object) -> None:
        nonlocal held
        held -= 1

    event.listen(db.engine(), "checkout", note_checkout)
    event.listen(db.engine(), "checkin", note_checkin)
    mix = {"name": "mix", "family": "tiny", "experts": ["expert-1", "expert-2"]}
    statuses = [
        client.post("/api/v1/mixes:plan", json=mix).status_code,
        client.post("/api/v1/mixes", json=mix, headers={"Idempotency-Key": "k"}).status_code,
        client.post("/api/v1/mixes/mix/versions/1/cancel").status_code,
        client.get("/api/v1/mixes/mix/versions/1/events").status_code,
        client.get("/api/v1/experts/expert-1").status_code,
        client.get("/api/v1/experts/expert-1/versions/1/files/config.json").status_code,
        client.get("/v1/models").status_code,
        client.get("/health").status_code,
        client.put(f"/api/v1/blobs/{sha256(b'x').hexdigest()}", content=b"x").status_code,
    ]
    assert statuses == [200, 202, 200, 200, 200, 200, 200, 200, 201]
    assert (most, held) == (1, 0)
