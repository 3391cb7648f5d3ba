"""A scrub goes through the whole store in small parts, and records what it finds."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from assembler.tables import MixVersion
from registry.blobs.blobs import LocalBlobs, get_bytes, put_bytes
from registry.database import db
from service.housekeeping import scrub
from service.tables import BlobFault, HousekeepingRun
from tests.service.housekeeping import stored_mix

FAST = 1 << 40


def go_on(store: LocalBlobs, *, seconds: float = 60.0, rate: int = FAST) -> None:
    scrub.go_on(store, bytes_per_second=rate, seconds=seconds, stopped=threading.Event())


def faults() -> dict[str, str]:
    with db.transaction() as session:
        return {fault.digest: fault.fault for fault in session.scalars(select(BlobFault))}


def runs() -> list[HousekeepingRun]:
    with db.transaction() as session:
        return list(session.scalars(select(HousekeepingRun).order_by(HousekeepingRun.id)))


def begin_again() -> None:
    """Let the last pass be long ago."""
    with db.transaction() as session:
        for run in session.query(HousekeepingRun):
            run.started_at = datetime.now(UTC) - scrub.PASS_EVERY - timedelta(seconds=1)


def test_faults_are_recorded_until_they_are_mended(store: LocalBlobs, mix: MixVersion) -> None:
    bad, lost = mix.gate_report_digest, mix.assembled_digest
    assert bad is not None
    assert lost is not None
    contents = {digest: get_bytes(store, digest) for digest in (bad, lost)}
    stored_mix.damage(store.local_path(bad))
    store.discard(lost)
    go_on(store)
    assert faults() == {bad: "damaged", lost: "missing"}
    with db.transaction() as session:
        fault = session.get_one(BlobFault, bad)
        assert "mix both@1: gate report" in fault.needed_by["reasons"]

    for content in contents.values():
        put_bytes(store, content)
    go_on(store)
    assert faults().keys() == contents.keys(), "the next pass is a week later"
    begin_again()
    go_on(store)
    assert faults() == {}


def test_a_pass_goes_on_where_it_stopped(store: LocalBlobs, mix: MixVersion) -> None:
    num = len(list(store.stored()))
    for _ in range(num):
        go_on(store, seconds=0)
    [run] = runs()
    assert run.finished_at is None
    assert run.result["num"] == num, "one blob in each part"
    go_on(store, seconds=0)
    [run] = runs()
    assert run.finished_at is not None
    assert run.result["num_bytes"] == sum(blob.num_bytes for blob in store.stored())


def test_reading_is_slow_and_ends_at_once() -> None:
    stopped = threading.Event()
    pace = scrub.Pace(1000, stopped)
    begin = time.monotonic()
    pace.read(50)
    pace.read(50)
    assert time.monotonic() - begin >= 0.1
    stopped.set()
    with pytest.raises(scrub.Stopped):
        pace.read(1_000_000)


def test_a_pass_that_is_stopped_goes_on_later(store: LocalBlobs, mix: MixVersion) -> None:
    stopped = threading.Event()
    stopped.set()
    scrub.go_on(store, bytes_per_second=1, seconds=60, stopped=stopped)
    [run] = runs()
    assert (run.finished_at, run.result["num"]) == (None, 0)
    go_on(store)
    [run] = runs()
    assert run.finished_at is not None
