"""Only one process acts for a worker, and jobs of a dead worker are recovered."""

from collections.abc import Iterator

import pytest
from dbos import DBOSClient

from assembler.jobs import dispatcher, queues, worker_lease
from assembler.jobs.worker_lease import MAX_RECOVERIES, Lease, Reaper
from assembler.tables import MixState, MixVersion
from registry.errors import Conflict
from tests.assembler.job_store import empty_store, set_status, status_of
from tests.assembler.workers import request_mix, version_of, wait_for


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


def test_a_worker_that_was_replaced_gives_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_lease, "RECLAIM_SECONDS", 0)
    presence = Lease("worker", url=database)
    presence.claim(give_up=lambda: False)
    presence.close()
    with worker_lease.connect(database) as other:
        worker_lease.try_lock(other, "worker")
        with pytest.raises(Conflict):
            presence.reclaim()
    presence.close()


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


def test_a_living_worker_keeps_its_jobs(
    database: str, client: DBOSClient, taken: MixVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_lease, "DEAD_SECONDS", 0)
    reaper = Reaper(client, executor_id="second", url=database)
    with worker_lease.connect(database) as living:
        worker_lease.try_lock(living, "first")
        reaper.look()
        assert status_of(client, taken.job_id)[0] == "PENDING"

    def taken_over() -> bool:
        reaper.look()
        return status_of(client, taken.job_id)[0] == "ENQUEUED"

    wait_for(taken_over, "the takeover")


def test_a_lock_must_be_free_for_a_while(
    database: str, client: DBOSClient, taken: MixVersion
) -> None:
    Reaper(client, executor_id="second", url=database).look()
    assert status_of(client, taken.job_id)[0] == "PENDING"
