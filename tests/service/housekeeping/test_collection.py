"""A collection removes all kinds of needless things, and a dry run removes nothing."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from assembler.mixes import job_events
from assembler.tables import MixState, MixVersion
from engine.serving import deployments
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import artifacts
from registry.database import db
from registry.settings import settings
from service.housekeeping import collection, needed_blobs
from service.housekeeping.collection import Removal
from tests.service.housekeeping import stored_mix

LONG_AGO = datetime.now(UTC) - timedelta(days=400)


def write(path: Path, *, num_bytes: int = 1000) -> Path:
    """Write a file that was last changed long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    for each in (path, *path.relative_to(settings().home).parents):
        os.utime(settings().home / each, (LONG_AGO.timestamp(),) * 2)
    return path


def collect(store: LocalBlobs, *, dry_run: bool = False) -> dict[str, Removal]:
    return {removal.what: removal for removal in collection.collect(store, dry_run=dry_run)}


def test_a_tidy_installation_stays_as_it_is(store: LocalBlobs, mix: MixVersion) -> None:
    for blob in store.stored():
        os.utime(store.local_path(blob.digest), (LONG_AGO.timestamp(),) * 2)
    assert {removal.num for removal in collect(store).values()} == {0}


def test_all_that_nobody_needs_is_removed(
    store: LocalBlobs, mix: MixVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_CACHE_BYTES", "1500")
    monkeypatch.setenv("NEXUSMIX_LOG_BYTES", "100")
    settings.cache_clear()
    home = settings().home
    needless = put_bytes(store, b"needless")
    os.utime(store.local_path(needless), (LONG_AGO.timestamp(),) * 2)
    gone = [
        write(home / "blobs" / "incoming-1"),
        write(home / "cache" / "jobs" / "ended" / "step-1" / "file"),
        write(home / "cache" / "noise" / "ab" / "old"),
        write(home / "logs" / "jobs" / "ended" / "gate.log"),
    ]
    long = write(home / "logs" / "web.log")
    with db.transaction() as session:
        assert mix.artifact_id is not None
        deployment = deployments.request(
            session, artifacts.get(session, mix.artifact_id), model="both"
        )
        job_events.record(session, "embed-1", type="message", message="old").created_at = LONG_AGO
        refused = session.get_one(MixVersion, mix.id)
        refused.state, refused.finished_at, refused.gate_report_digest = (
            MixState.CANCELLED,
            LONG_AGO,
            None,
        )
    assert mix.assembled_digest is not None
    served = write(home / "cache" / "serving" / mix.assembled_digest / "config.json")
    kept_log = write(home / "logs" / "deployments" / f"{deployment.id}.log", num_bytes=10)

    would, did = collect(store, dry_run=True), None
    assert all(path.exists() for path in gone)
    did = collect(store)

    assert not any(path.exists() for path in gone)
    assert served.exists()
    assert kept_log.exists()
    assert long.read_bytes() == b""
    assert would == did
    removed = {what: removal.num for what, removal in did.items() if removal.num}
    assert removed == {
        "candidates whose time is over": 1,
        "events of jobs": 1,
        "blobs that nothing needs": 1,
        "half uploads": 1,
        "checkpoints of jobs that ended": 1,
        "cached results": 1,
        "logs": 1,
        "long logs": 1,
    }
    assert [blob.digest for blob in store.aside()] == [needless]


def test_nothing_is_removed_from_a_store_that_cannot_be_read(
    store: LocalBlobs, mix: MixVersion
) -> None:
    assert mix.assembled_digest is not None
    stored_mix.damage(store.local_path(mix.assembled_digest))
    os.utime(store.local_path(put_bytes(store, b"needless")), (LONG_AGO.timestamp(),) * 2)
    removal = collect(store)["blobs that nothing needs"]
    assert removal.num == 0
    assert "1 manifests cannot be read" in removal.note
    assert not list(store.aside())


def test_one_process_at_a_time_keeps_house(database: str) -> None:
    with collection.alone() as first, collection.alone() as second:
        assert (first, second) == (True, False)
    with collection.alone() as again:
        assert again


def test_what_a_collection_leaves_is_whole(store: LocalBlobs, mix: MixVersion) -> None:
    for _ in range(3):
        for blob in (*store.stored(), *store.aside()):
            path = next(store.root.rglob(f"{blob.digest[:2]}/{blob.digest[2:]}"))
            os.utime(path, (LONG_AGO.timestamp(),) * 2)
        collect(store)
    with db.transaction() as session:
        needed = needed_blobs.find(session, store)
    assert {blob.digest for blob in store.stored()} == needed.needed_by.keys()
