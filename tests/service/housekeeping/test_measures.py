"""`/metrics` tells how house-keeping goes."""

import os
import re

import pytest
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore, put_bytes
from registry.database import db
from registry.settings import settings
from service.housekeeping import janitor
from service.tables import BlobFault


def measured(client: TestClient, metric: str) -> float:
    found = re.search(rf"^{re.escape(metric)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, metric
    return float(found[1])


def test_a_collection_is_measured(client: TestClient, store: BlobStore) -> None:
    path = store.local_path(put_bytes(store, b"needless"))
    os.utime(path, (0, 0))
    janitor.collect()
    assert measured(client, 'nexusmix_housekeeping_started_timestamp_seconds{kind="gc"}') > 1e9
    assert 0 <= measured(client, 'nexusmix_housekeeping_seconds{kind="gc"}') < 60


def test_faults_are_counted(client: TestClient) -> None:
    assert measured(client, 'nexusmix_faulty_blobs{fault="damaged"}') == 0
    with db.transaction() as session:
        session.add(BlobFault(digest="a" * 64, fault="damaged", needed_by={"reasons": []}))
    assert measured(client, 'nexusmix_faulty_blobs{fault="damaged"}') == 1
    assert measured(client, 'nexusmix_faulty_blobs{fault="missing"}') == 0


def test_the_disk_is_measured(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_DISK_RESERVE_BYTES", "1000")
    settings.cache_clear()
    settings().home.mkdir(parents=True, exist_ok=True)
    assert measured(client, "nexusmix_disk_reserve_bytes") == 1000
    assert measured(client, "nexusmix_disk_free_bytes") > 1000
