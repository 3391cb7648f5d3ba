"""House is kept when it is due, by one process, and what was done is recorded."""

import os
import threading
from datetime import UTC, datetime, timedelta

import pytest

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.database import db
from registry.settings import settings
from service.housekeeping import collection, janitor, scrub
from service.housekeeping.janitor import Janitor
from service.tables import HousekeepingRun
from tests.assembler import rows


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor, "ROUND_SECONDS", 0.0)


def num_runs(kind: str) -> int:
    with db.transaction() as session:
        return session.query(HousekeepingRun).filter_by(kind=kind).count()


def test_work_is_done_when_it_is_due(store: LocalBlobs, impatient: None) -> None:
    half = settings().blobs_path / "incoming-1"
    digest = put_bytes(store, b"needless")
    for path in (store.local_path(digest), half):
        path.touch()
        os.utime(path, (0, 0))
    worker = Janitor()
    worker.work()
    assert not half.exists()
    assert [blob.digest for blob in store.aside()] == [digest]
    assert (num_runs(janitor.KIND), num_runs(scrub.KIND)) == (1, 1)
    worker.work()
    assert num_runs(janitor.KIND) == 1, "it was done a moment ago"
    with db.transaction() as session:
        run = session.query(HousekeepingRun).filter_by(kind=janitor.KIND).one()
        [removal] = [r for r in run.result["removals"] if r["num"]]
        assert (removal["what"], run.error) == ("blobs that nothing needs", None)
        run.started_at = datetime.now(UTC) - timedelta(hours=settings().housekeeping_hours)
    worker.work()
    assert num_runs(janitor.KIND) == 2


def test_others_wait_for_the_one_that_works(store: LocalBlobs, impatient: None) -> None:
    with collection.alone(), collection.alone(scrub.KIND):
        Janitor().work()
    assert (num_runs(janitor.KIND), num_runs(scrub.KIND)) == (0, 0)


def test_nothing_is_done_that_is_switched_off(
    store: LocalBlobs, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_HOUSEKEEPING_HOURS", "0")
    monkeypatch.setenv("NEXUSMIX_SCRUB_BYTES_PER_SECOND", "0")
    settings.cache_clear()
    Janitor().work()
    assert (num_runs(janitor.KIND), num_runs(scrub.KIND)) == (0, 0)


def test_an_error_is_recorded(store: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.transaction() as session:
        family = rows.add_family(session, store)
    store.discard(family.seed_digest)
    janitor.collect()
    with db.transaction() as session:
        run = session.query(HousekeepingRun).one()
    notes = [removal["note"] for removal in run.result["removals"]]
    assert any("1 manifests cannot be read" in note for note in notes)


def test_the_thread_goes_on_after_an_error_and_ends(
    home: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a database each round fails."""
    monkeypatch.setattr(janitor, "ROUND_SECONDS", 0.001)
    rounds, enough = [], threading.Event()
    work = Janitor.work

    def counted(self: Janitor) -> None:
        rounds.append(1)
        if len(rounds) > 2:
            enough.set()
        work(self)

    monkeypatch.setattr(Janitor, "work", counted)
    with janitor.at_work():
        assert enough.wait(timeout=60)
    for thread in threading.enumerate():
        if thread.name == "janitor":
            thread.join(timeout=60)
            assert not thread.is_alive()
