"""Events keep their order, steps begin once, and transactions survive a database restart."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assembler.mixes import job_events
from assembler.tables import JobEvent
from registry.database import db


def test_events_come_in_order_and_after_the_last_one_seen(session: Session) -> None:
    first, second = (
        job_events.record(session, "job", type="message", message=word) for word in ("one", "two")
    )
    job_events.record(session, "other", type="message", message="three")
    assert job_events.events_after(session, "job") == [first, second]
    assert job_events.events_after(session, "job", last_id=first.id) == [second]


def test_a_step_begins_and_ends_once(session: Session) -> None:
    for _ in range(2):
        assert job_events.begin_step(session, "job", step="gate")
    for _ in range(2):
        job_events.end_step(session, "job", step="gate")
    assert not job_events.begin_step(session, "job", step="gate")
    phases = [event.data["phase"] for event in job_events.events_after(session, "job")]
    assert phases == ["began", "ended"]


def test_recoveries_are_counted_for_one_step(session: Session) -> None:
    def recovered() -> None:
        job_events.record(session, "job", type="state", message="", data={"phase": "recovered"})

    recovered()
    assert job_events.num_recoveries(session, "job") == 1
    job_events.end_step(session, "job", step="assemble")
    assert job_events.num_recoveries(session, "job") == 0
    recovered()
    recovered()
    assert job_events.num_recoveries(session, "job") == 2


@pytest.mark.parametrize("fresh", ["ended", "retried"])
def test_attempts_are_counted_since_the_last_fresh_start(session: Session, fresh: str) -> None:
    for phase in ("killed", fresh, "killed", "waiting", "killed"):
        job_events.record(session, "job", type="state", message="", data={"phase": phase})
    assert len(job_events.attempts(session, "job", phase="killed")) == 2
    assert job_events.attempts(session, "other", phase="killed") == []
    assert job_events.newest_phase(session, "job") == "killed"
    assert job_events.newest_phase(session, "other") is None


def test_a_transaction_is_repeated_after_a_lost_connection(database: str) -> None:
    attempts = []

    def work(session: Session) -> JobEvent:
        attempts.append(session)
        if len(attempts) == 1:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return job_events.record(session, "job", type="message", message="done")

    job_events.durably(work)
    assert len(attempts) == 2
    with db.transaction() as session:
        assert [event.message for event in job_events.events_after(session, "job")] == ["done"]


def test_a_wrong_transaction_is_not_repeated(database: str) -> None:
    attempts = []

    def work(session: Session) -> None:
        attempts.append(session)
        session.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(DBAPIError):
        job_events.durably(work)
    assert len(attempts) == 1


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 2500])
def test_metrics_are_taken_evenly_from_first_to_last(session: Session, total: int) -> None:
    session.add_all(
        JobEvent(job_id="job", type="metrics", message="", data={"step": step})
        for step in range(total)
    )
    job_events.record(session, "other", type="metrics", message="", data={"step": -1})
    steps = [data["step"] for data in job_events.sampled_metrics(session, "job", count=10)]

    assert steps == sorted(steps)
    assert min(total, 10) <= len(steps) <= 11 or total == 11
    assert steps[:1] == list(range(total))[:1]
    assert steps[-1:] == list(range(total))[-1:]


def test_milestones_are_all_but_metrics(session: Session) -> None:
    job_events.begin_step(session, "job", step="assemble")
    session.add_all(
        JobEvent(job_id="job", type="metrics", message="", data={"step": step})
        for step in range(1200)
    )
    session.flush()
    job_events.end_step(session, "job", step="assemble")
    phases = [event.data["phase"] for event in job_events.milestones(session, "job")]
    assert phases == ["began", "ended"]
