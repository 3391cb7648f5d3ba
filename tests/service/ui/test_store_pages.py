"""The page about the store shows what was found and what was removed."""

import os

import pytest
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore, put_bytes
from registry.database import db
from registry.settings import settings
from service.housekeeping import janitor
from service.tables import BlobFault


def test_a_new_store_is_shown(client: TestClient) -> None:
    text = client.get("/store").text
    assert "Nothing was found" in text
    assert "has not been read yet" in text
    assert "Nothing was removed yet" in text
    assert "no more tensors are taken" not in text


def test_faults_and_removals_are_shown(client: TestClient, store: BlobStore) -> None:
    janitor.collect()
    with db.transaction() as session:
        reasons = {"reasons": ["mix both@1: <gate> report"]}
        session.add(BlobFault(digest="a" * 64, fault="damaged", needed_by=reasons))
    text = client.get("/store").text
    assert "a" * 64 in text
    assert "mix both@1: &lt;gate&gt; report" in text
    assert "blobs that nothing needs" in text


def test_a_look_removes_nothing(client: TestClient, store: BlobStore) -> None:
    path = store.local_path(put_bytes(store, b"needless"))
    os.utime(path, (0, 0))
    text = client.get("/store/needless").text
    assert "What would be removed now" in text
    assert path.exists()


def test_a_full_disk_is_shown(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_DISK_RESERVE_BYTES", str(2**62))
    settings.cache_clear()
    assert "no more tensors are taken" in client.get("/store").text


def test_visitors_sign_in_first(anonymous: TestClient) -> None:
    answer = anonymous.get("/store", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fstore")
