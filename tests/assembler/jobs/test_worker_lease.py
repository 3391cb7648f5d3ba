"""Only one process acts for a worker, and jobs of a dead worker are recovered."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from dbos import DBOSClient

from assembler.jobs import dispatcher, lease_clock, queues, worker_lease
from assembler.jobs.worker_lease import MAX_RECOVERIES, Lease, LeaseWatch, Reaper
from assembler.mixes import fence
from assembler.mixes.fence import Fence, Superseded
from assembler.tables import MixState, MixVersion, Worker
from registry.database import db
from tests.assembler.job_store import empty_store, set_status, status_of
from tests.assembler.workers import request_mix, version_of, wait_for


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process act for no worker before and after a test."""
    # Set, so that it is removed again when a lease has changed it.
    monkeypatch.setenv(fence.VARIABLE, "")
    yield
    lease_clock.forget()


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with empty_store(database) as client:
        yield client


@pytest.fixture
def taken(client: DBOSClient) -> MixVersion:
    """Request a mix whose job was taken by the worker `first`."""
    version = request_mix()
    dispatcher.enqueue(client)
    set_status(version.job_id, "PENDING", executor_id="first")
    return version


def test_a_lock_is_held_by_one_session_as_long_as_it_lives(database: str) -> None:
    with worker_lease.connect(database) as first, worker_lease.connect(database) as second:
        assert worker_lease.try_lock(first, "worker")
        assert not worker_lease.try_lock(second, "worker")
        assert worker_lease.try_lock(second, "another")
        first.close()
        # The server needs a moment to notice the end of a session.
        wait_for(lambda: worker_lease.try_lock(second, "worker"), "the lock")


def test_a_worker_waits_until_its_name_is_free(database: str) -> None:
    first, second = (Lease("worker", url=database) for _ in range(2))
    assert first.claim(give_up=lambda: False)
    assert not second.claim(give_up=lambda: True)
    first.close()
    assert second.claim(give_up=lambda: False)
    second.close()


def test_a_claim_fences_the_worker_before(database: str) -> None:
    first, second = (Lease("worker", url=database) for _ in range(2))
    first.claim(give_up=lambda: False)
    old = fence.current()
    first.close()
    second.claim(give_up=lambda: False)
    assert old is not None
    assert fence.current() == Fence("worker", old.epoch + 1)
    second.close()


def test_a_session_that_outlived_its_worker_is_ended(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_lease, "DEAD_SECONDS", 0)
    cut_off, second = (Lease("worker", url=database) for _ in range(2))
    cut_off.claim(give_up=lambda: False)
    assert second.claim(give_up=lambda: False), "the first renews nothing"
    with pytest.raises(psycopg.OperationalError):
        cut_off.renew()
    cut_off.close()
    second.close()


def test_a_worker_goes_on_after_its_session_was_lost(database: str) -> None:
    lease = Lease("worker", url=database)
    lease.claim(give_up=lambda: False)
    with worker_lease.connect(database) as other:
        worker_lease.end_holder(other, "worker")
    with pytest.raises(psycopg.OperationalError):
        lease.renew()
    lease.reclaim()
    lease.renew()
    lease.close()


def test_a_worker_ends_its_own_session_that_still_has_the_lock(database: str) -> None:
    lease = Lease("worker", url=database)
    lease.claim(give_up=lambda: False)
    lost = lease._session
    lease._connection = None
    lease.reclaim()
    with pytest.raises(psycopg.OperationalError):
        lost.execute("SELECT 1")
    lost.close()
    lease.close()


def test_a_worker_that_was_replaced_gives_up(database: str) -> None:
    lease = Lease("worker", url=database)
    lease.claim(give_up=lambda: False)
    with worker_lease.connect(database) as other:
        worker_lease.take_over(other, "worker")
        with pytest.raises(Superseded):
            lease.renew()
        lease.close()
        wait_for(lambda: worker_lease.try_lock(other, "worker"), "the lock")
        with pytest.raises(Superseded):
            lease.reclaim()
    lease.close()


def test_recovered_jobs_return_to_their_own_queue(client: DBOSClient, taken: MixVersion) -> None:
    worker_lease.recover(client, executor_id="first")
    assert status_of(client, taken.job_id) == ("ENQUEUED", queues.HEAVY)


def test_a_job_that_kills_its_workers_is_parked(client: DBOSClient, taken: MixVersion) -> None:
    for _ in range(MAX_RECOVERIES):
        worker_lease.recover(client, executor_id="first")
        set_status(taken.job_id, "PENDING", executor_id="first")
    assert version_of(taken.id).state is MixState.QUEUED
    worker_lease.recover(client, executor_id="first")
    assert version_of(taken.id).state is MixState.PARKED
    assert status_of(client, taken.job_id)[0] == "CANCELLED"


def test_an_orderly_stop_counts_no_recovery(client: DBOSClient, taken: MixVersion) -> None:
    for _ in range(MAX_RECOVERIES + 1):
        worker_lease.release(client, executor_id="first")
        assert status_of(client, taken.job_id) == ("ENQUEUED", queues.HEAVY)
        set_status(taken.job_id, "PENDING", executor_id="first")
    worker_lease.recover(client, executor_id="first")
    assert version_of(taken.id).state is MixState.QUEUED


class Living:
    """A worker that renews its lease whenever somebody looks."""

    def __init__(self, database: str, executor_id: str, *, has_lock: bool = True) -> None:
        self.connection = worker_lease.connect(database)
        self.executor_id = executor_id
        if has_lock:
            assert worker_lease.try_lock(self.connection, executor_id)
        worker_lease.take_over(self.connection, executor_id)

    def renew(self) -> None:
        self.connection.execute("UPDATE workers SET renewed_at = clock_timestamp()")


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_living_worker_keeps_its_jobs(
    database: str,
    client: DBOSClient,
    taken: MixVersion,
    monkeypatch: pytest.MonkeyPatch,
    has_lock: bool,
) -> None:
    """A worker whose session was lost lives as long as it renews its lease."""
    monkeypatch.setattr(worker_lease, "DEAD_SECONDS", 1e-9)
    reaper = Reaper(client, executor_id="second", url=database)
    living = Living(database, "first", has_lock=has_lock)
    for _ in range(3):
        living.renew()
        reaper.look()
    assert status_of(client, taken.job_id)[0] == "PENDING"
    living.connection.close()


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_worker_that_renews_nothing_is_replaced(
    database: str,
    client: DBOSClient,
    taken: MixVersion,
    monkeypatch: pytest.MonkeyPatch,
    has_lock: bool,
) -> None:
    """Whether its session has ended with it, or hangs on a line that was cut."""
    monkeypatch.setattr(worker_lease, "DEAD_SECONDS", 0)
    reaper = Reaper(client, executor_id="second", url=database)
    living = Living(database, "first", has_lock=has_lock)

    def taken_over() -> bool:
        reaper.look()
        return status_of(client, taken.job_id)[0] == "ENQUEUED"

    wait_for(taken_over, "the takeover")
    with db.transaction() as session:
        assert session.get_one(Worker, "first").epoch == 2
    living.connection.close()


def test_a_worker_of_an_older_version_lives_as_long_as_its_session(
    database: str, client: DBOSClient, taken: MixVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_lease, "DEAD_SECONDS", 0)
    reaper = Reaper(client, executor_id="second", url=database)
    with worker_lease.connect(database) as old:
        worker_lease.try_lock(old, "first")
        reaper.look()
        old.execute("SELECT 1")
        assert status_of(client, taken.job_id)[0] == "PENDING"


def test_a_lease_must_be_unchanged_for_a_while(
    database: str, client: DBOSClient, taken: MixVersion
) -> None:
    Reaper(client, executor_id="second", url=database).look()
    assert status_of(client, taken.job_id)[0] == "PENDING"


def test_observation_begins_anew_after_an_outage() -> None:
    watch, now = LeaseWatch(), datetime.now(UTC)
    assert not watch.is_dead("first", now)
    assert watch._seen
    watch.keep(set())
    assert not watch._seen


def test_a_worker_stops_its_steps_before_others_begin_them() -> None:
    assert lease_clock.STALE_SECONDS + lease_clock.STOP_SECONDS < lease_clock.DEAD_SECONDS
