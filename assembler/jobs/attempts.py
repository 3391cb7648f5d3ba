"""Repeat a step until it ends, has waited too long for what it needs, or has killed too often.

Attempts are events of the job, so a worker that takes over goes on counting. A step that failed
transiently is repeated with growing pauses for `step_retry_seconds` without progress. A step that
killed its process MAX_KILLS times is poison.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from assembler.jobs import step_errors, step_process
from assembler.jobs.durable import durably
from assembler.jobs.step_errors import Killed, Poisoned, TransientFailure
from assembler.jobs.step_process import Cancelled, WorkerStopping
from assembler.mixes import job_events
from assembler.tables import JobEvent
from registry import tracing
from registry.errors import StepFailed
from registry.settings import settings

log = structlog.get_logger(__name__)

MAX_KILLS = 3
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
POLL_SECONDS = 0.2

T = TypeVar("T")
Progress = Callable[[Session], int]


def repeat(
    attempt: Callable[[], None],
    *,
    job_id: str,
    step: str,
    cancelled: Callable[[], bool],
    progress: Progress = lambda session: 0,
) -> None:
    """Call `attempt` until it returns or the step has ended.

    `progress` says how far the step has come; the time of waiting begins anew when it has come
    further. Raises Cancelled, WorkerStopping, Poisoned, and StepFailed for what is permanent or has
    lasted too long.

    Each attempt is a span in the trace of the request for this job.
    """
    while True:
        try:
            with _traced(job_id, step):
                return attempt()
        except Killed as error:
            pause = _after_kill(job_id, step, error)
        except TransientFailure as error:
            pause = _after_outage(job_id, step, error, progress)
        wait(pause, cancelled)
        # An attempt may have stored its result and then failed to say so.
        if durably(lambda session: job_events.has_ended(session, job_id, step=step)):
            return None


@contextmanager
def _traced(job_id: str, step: str) -> Iterator[None]:
    if not tracing.is_on():
        yield
        return
    parent = durably(lambda session: job_events.trace_of(session, job_id))
    about = {"nexusmix.job.id": job_id, "nexusmix.step": step}
    with tracing.span(f"step {step}", parent=parent, attributes=about):
        yield


def in_this_process(work: Callable[[], T], *, step: str) -> T:
    """Do work of a step that needs no process of its own; raise the errors of one."""
    try:
        return work()
    except Exception as error:
        log.warning("step failed", step=step, exc_info=True)
        detail = f"{step}: {step_errors.describe(error)}"
        raise step_errors.ERRORS[step_errors.kind_of(error)](detail) from error


def _after_kill(job_id: str, step: str, error: Killed) -> float:
    """Record a kill and return the pause before the next attempt. Raises Poisoned."""

    def note(session: Session) -> int:
        number = len(job_events.attempts(session, job_id, phase="killed")) + 1
        data = {"step": step, "phase": "killed", "error": error.detail}
        text = f"{error.detail} ({number} of {MAX_KILLS})"
        job_events.record(session, job_id, type="state", message=text, data=data)
        return number

    number = durably(note)
    if number >= MAX_KILLS:
        raise Poisoned(
            f"{error.detail}; this happened {MAX_KILLS} times, so it is not tried again by itself:"
            " give the step what it lacks, and retry"
        )
    return _pause(number)


def _after_outage(job_id: str, step: str, error: TransientFailure, progress: Progress) -> float:
    """Record a transient failure and return the pause. Raises StepFailed when its time is over."""

    def note(session: Session) -> float | None:
        now, reached = datetime.now(UTC), progress(session)
        since = _outage(job_events.attempts(session, job_id, phase="waiting"), reached)
        waited = (now - since[0].created_at).total_seconds() if since else 0.0
        left = settings().step_retry_seconds - waited
        if left <= 0:
            return None
        pause = min(_pause(len(since) + 1), left)
        text = f"{error.detail}; trying again in {pause:.0f} s"
        data = {"step": step, "phase": "waiting", "error": error.detail, "reached": reached}
        job_events.record(session, job_id, type="state", message=text, data=data)
        return pause

    pause = durably(note)
    if pause is None:
        seconds = settings().step_retry_seconds
        raise StepFailed(f"{error.detail}; it was tried again for {seconds:.0f} s, retry later")
    return pause


def _outage(waited: Sequence[JobEvent], reached: int) -> Sequence[JobEvent]:
    """Return the failures since the step last came further than ever before."""
    first, furthest = 0, -1
    for number, event in enumerate(waited):
        if event.data["reached"] > furthest:
            first, furthest = number, event.data["reached"]
    return [] if reached > furthest else waited[first:]


def _pause(number: int) -> float:
    """Return the seconds to wait after the failure of this number, from 1."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(number - 1, 10), LONGEST_PAUSE_SECONDS)


def wait(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Wait inside a step. Raises WorkerStopping, and Cancelled when `cancelled()` turns true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if step_process.STOPPING.wait(POLL_SECONDS):
            raise WorkerStopping
        if cancelled():
            raise Cancelled
