"""Blobs are stored only under their own digest."""

import hashlib
import shutil
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from registry import settings
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore, get_bytes

DATA = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
URL = f"/api/v1/blobs/{DIGEST}"


def chunks(data: bytes) -> Iterator[bytes]:
    yield from (data[i : i + 10_000] for i in range(0, len(data), 10_000))


def test_a_blob_is_stored_once(client: TestClient, store: BlobStore) -> None:
    assert client.head(URL).status_code == 404
    assert client.put(URL, content=chunks(DATA)).status_code == 201
    assert client.put(URL, content=DATA).status_code == 200
    assert client.head(URL).headers["content-length"] == str(len(DATA))
    assert get_bytes(store, DIGEST) == DATA


def test_a_damaged_blob_is_repaired_by_sending_it_again(
    client: TestClient, store: BlobStore
) -> None:
    client.put(URL, content=DATA)
    path = store.local_path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    assert client.put(URL, content=DATA + b"!").status_code == 422
    assert get_bytes(store, DIGEST) == b"rotten"
    assert client.put(URL, content=DATA).status_code == 200
    assert get_bytes(store, DIGEST) == DATA


def test_bytes_with_another_digest_are_refused_and_not_stored(
    client: TestClient, store: BlobStore
) -> None:
    answer = client.put(URL, content=chunks(DATA + b"!"))
    assert answer.status_code == 422
    assert DIGEST in answer.json()["detail"]
    assert store.size(DIGEST) is None


def test_writing_needs_a_key(anonymous: TestClient) -> None:
    assert anonymous.put(URL, content=DATA).status_code == 401


@pytest.mark.parametrize("digest", ["abc", DIGEST.upper(), "..", "a" * 65, "%2e%2e%2f" + "a" * 60])
def test_a_wrong_digest_is_refused(client: TestClient, digest: str) -> None:
    assert client.put(f"/api/v1/blobs/{digest}", content=DATA).status_code in (404, 405, 422)


def test_a_blob_that_is_too_large_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_UPLOAD_BYTES", "100000")
    settings.settings.cache_clear()
    for content in (DATA, chunks(DATA)):
        answer = client.put(URL, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_blob_without_room_on_the_disk_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    answer = client.put(URL, content=DATA)
    assert (answer.status_code, answer.json()["code"]) == (507, "out_of_space")


def test_a_reserve_of_the_disk_stays_free(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 2 * len(DATA)
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for reserve, status in ((free - len(DATA) + 1, 507), (free - len(DATA), 201)):
        monkeypatch.setenv("NEXUSMIX_DISK_RESERVE_BYTES", str(reserve))
        settings.settings.cache_clear()
        blob_stores.store.cache_clear()
        answer = client.put(URL, content=DATA)
        assert answer.status_code == status
        assert status == 201 or "`nexusmix gc` frees" in answer.json()["detail"]
