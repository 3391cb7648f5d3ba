"""A write of a worker that was replaced is refused, in the transaction of the write."""

from collections.abc import Iterator

import psycopg
import pytest

from assembler.jobs import worker_lease
from assembler.mixes import fence, job_events
from assembler.mixes.fence import Fence, Superseded
from registry.database import db


@pytest.fixture
def acting(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """Let this process act for `worker` in its first epoch; yield a session for take-overs."""
    monkeypatch.setenv(fence.VARIABLE, "")
    with worker_lease.connect(database) as connection:
        fence.hold(Fence("worker", worker_lease.take_over(connection, "worker")))
        yield connection


def write() -> None:
    job_events.durably(
        lambda session: job_events.record(session, "job", type="message", message="late")
    )


def messages() -> list[str]:
    with db.transaction() as session:
        return [event.message for event in job_events.events_after(session, "job")]


def test_a_write_after_a_take_over_is_refused(acting: psycopg.Connection) -> None:
    write()
    worker_lease.take_over(acting, "worker")
    with pytest.raises(Superseded):
        write()
    assert messages() == ["late"], "only what was written before"


def test_a_take_over_waits_for_a_write_that_was_checked(
    acting: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_lease, "LOCK_MILLISECONDS", 100)
    with db.transaction() as session:
        fence.check(session)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            worker_lease.take_over(acting, "worker")
    worker_lease.take_over(acting, "worker")


def test_a_renewal_does_not_wait_for_writes(acting: psycopg.Connection) -> None:
    with db.transaction() as session:
        fence.check(session)
        acting.execute("SET lock_timeout = 100")
        acting.execute("UPDATE workers SET renewed_at = clock_timestamp()")


def test_a_process_of_no_worker_is_not_fenced(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(fence.VARIABLE, raising=False)
    write()
    assert messages() == ["late"]


def test_a_name_may_have_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fence.VARIABLE, "")
    fence.hold(Fence("rack 3, host 4", 7))
    assert fence.current() == Fence("rack 3, host 4", 7)
