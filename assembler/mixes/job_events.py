"""Record the events of jobs in order, begin and end each step once, and wake the workers.

The `job_id` of a job is also the id of its durable workflow. The rows of this module are for people
and pages; the workflow engine keeps its own.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assembler.mixes import fence
from assembler.tables import JobEvent
from registry import tracing
from registry.database import db
from registry.settings import settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAKE_CHANNEL = "nexusmix_jobs"
METRICS = "metrics"
MAX_EVENTS = 1000
RETRY_SECONDS = 0.5
# A restart of the database takes seconds; a longer outage needs a person.
GIVE_UP_SECONDS = 300.0


def record(
    session: Session, job_id: str, *, type: str, message: str, data: dict[str, Any] | None = None
) -> JobEvent:
    """Append an event; `type` is `state`, `metrics` or `message`."""
    event = JobEvent(job_id=job_id, type=type, message=message, data=data or {})
    session.add(event)
    session.flush()
    return event


def record_trace(session: Session, job_id: str) -> None:
    """Append the trace of the request that asks for a job, so that the job's steps continue it.

    Does nothing where traces are off.
    """
    if headers := tracing.headers():
        trace_id = headers["traceparent"].split("-")[1]
        data = {"trace": headers}
        record(session, job_id, type="message", message=f"trace {trace_id}", data=data)


def trace_of(session: Session, job_id: str) -> dict[str, str] | None:
    """Return the headers of the newest trace of a job, None if it has none."""
    query = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.data.has_key("trace"))
    data = session.scalar(query.order_by(JobEvent.id.desc()).limit(1))
    return None if data is None else data["trace"]


def events_after(session: Session, job_id: str, *, last_id: int = 0) -> Sequence[JobEvent]:
    """Return at most MAX_EVENTS events of a job with ids above `last_id`, oldest first."""
    query = (
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.id > last_id)
        .order_by(JobEvent.id)
        .limit(MAX_EVENTS)
    )
    return session.scalars(query).all()


def milestones(session: Session, job_id: str) -> Sequence[JobEvent]:
    """Return all events of a job but its metrics, oldest first: the metrics can be very many."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type != METRICS)
    return session.scalars(query.order_by(JobEvent.id)).all()


def sampled_metrics(
    session: Session, job_id: str, *, count: int = MAX_EVENTS
) -> Sequence[dict[str, Any]]:
    """Return the data of about `count` metrics events of a job, taken evenly, oldest first.

    The first and the last are always among them.
    """
    position = func.row_number().over(order_by=JobEvent.id)
    numbered = (
        select(JobEvent.id, position.label("position"), func.count().over().label("total"))
        .where(JobEvent.job_id == job_id, JobEvent.type == METRICS)
        .subquery()
    )
    stride = func.greatest(1, (numbered.c.total + count - 1) // count)
    is_taken = ((numbered.c.position - 1) % stride == 0) | (numbered.c.position == numbered.c.total)
    query = select(JobEvent.data).join(numbered, numbered.c.id == JobEvent.id).where(is_taken)
    return session.scalars(query.order_by(JobEvent.id)).all()


def newest_metrics(session: Session, job_id: str) -> dict[str, Any] | None:
    """Return the data of the newest metrics event of a job; None before the first."""
    query = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.type == METRICS)
    return session.scalar(query.order_by(JobEvent.id.desc()).limit(1))


def begin_step(session: Session, job_id: str, *, step: str) -> bool:
    """Record that a step begins. Return False for a step that has ended: it must not run again."""
    if has_ended(session, job_id, step=step):
        return False
    if not _has_event(session, job_id, step, "began"):
        data = {"step": step, "phase": "began"}
        record(session, job_id, type="state", message=f"{step} began", data=data)
    return True


def has_ended(session: Session, job_id: str, *, step: str) -> bool:
    """Tell whether a step has ended, with its result stored."""
    return _has_event(session, job_id, step, "ended")


def end_step(
    session: Session, job_id: str, *, step: str, data: dict[str, Any] | None = None
) -> None:
    """Record that a step ended, in the transaction that stores its result."""
    if not has_ended(session, job_id, step=step):
        data = {"step": step, "phase": "ended", **(data or {})}
        record(session, job_id, type="state", message=f"{step} ended", data=data)


def num_recoveries(session: Session, job_id: str) -> int:
    """Return how often the job was recovered since its last step ended, or it was retried."""
    return len(attempts(session, job_id, phase="recovered"))


def attempts(session: Session, job_id: str, *, phase: str) -> Sequence[JobEvent]:
    """Return the events of a phase since the job's last step ended, or the job was retried."""
    fresh = or_(*(JobEvent.data.contains({"phase": start}) for start in ("ended", "retried")))
    start = select(func.max(JobEvent.id)).where(JobEvent.job_id == job_id, fresh)
    last_id = session.scalar(start) or 0
    query = select(JobEvent).where(*_is(job_id, phase=phase), JobEvent.id > last_id)
    return session.scalars(query.order_by(JobEvent.id)).all()


def newest_phase(session: Session, job_id: str) -> str | None:
    """Return what last happened to a job, None if nothing has."""
    query = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.type == "state")
    data = session.scalar(query.order_by(JobEvent.id.desc()).limit(1))
    return None if data is None else data.get("phase")


def log_path(job_id: str, name: str) -> Path:
    """Return the path of the log of one process of a job."""
    return settings().home / "logs" / "jobs" / job_id / f"{name}.log"


def wake(session: Session) -> None:
    """Notify the workers, when this transaction commits, that a row waits for a job.

    This only saves time: a worker that misses it finds the row at its next poll.
    """
    session.execute(select(func.pg_notify(WAKE_CHANNEL, "")))


def durably(work: Callable[[Session], T], *, stop: threading.Event | None = None) -> T:
    """Run `work` in a transaction, and repeat it while the database is unreachable.

    `work` must be safe to run twice, because a commit may succeed although its answer is lost.
    Raises the last error after GIVE_UP_SECONDS or when `stop` is set, and Superseded if the worker
    that this process acts for was replaced.
    """
    stop = stop or threading.Event()
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            with db.transaction() as session:
                fence.check(session)
                return work(session)
        except (DBAPIError, *db.OUTAGES) as error:
            if not is_outage(error) or time.monotonic() > deadline:
                raise
            log.warning("database away, trying again", error=str(error).strip())
            if stop.wait(RETRY_SECONDS):
                raise


def is_outage(error: Exception) -> bool:
    """Tell whether the server was unreachable; otherwise the statement was wrong."""
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, db.OUTAGES)


def _has_event(session: Session, job_id: str, step: str, phase: str) -> bool:
    query = select(JobEvent).where(*_is(job_id, step=step, phase=phase))
    return bool(session.scalar(select(query.exists())))


def _is(job_id: str, **data: str) -> tuple[ColumnElement[bool], ...]:
    return JobEvent.job_id == job_id, JobEvent.type == "state", JobEvent.data.contains(data)
