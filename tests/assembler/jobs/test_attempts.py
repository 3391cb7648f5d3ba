"""A step is repeated while what it needs is away, and parked when it kills its process."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.orm import Session

from assembler.jobs import attempts, step_process
from assembler.jobs.step_errors import Killed, Poisoned, TransientFailure
from assembler.jobs.step_process import Cancelled, WorkerStopping
from assembler.mixes import job_events
from assembler.tables import JobEvent
from registry import tracing
from registry.database import db
from registry.errors import OutOfSpace, StepFailed
from registry.settings import settings

JOB, STEP = "job", "finetune"


@pytest.fixture(autouse=True)
def impatient(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Skip the pauses, and forget an earlier stop."""
    monkeypatch.setattr(attempts, "FIRST_PAUSE_SECONDS", 0.0)
    step_process.STOPPING.clear()
    yield
    step_process.STOPPING.clear()


def failing(*errors: Exception) -> Callable[[], None]:
    """Return an attempt that raises these errors in turn, and then succeeds."""
    left = iter(errors)

    def attempt() -> None:
        if error := next(left, None):
            raise error

    return attempt


def repeat(
    attempt: Callable[[], None],
    *,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[Session], int] = lambda session: 0,
) -> None:
    attempts.repeat(attempt, job_id=JOB, step=STEP, cancelled=cancelled, progress=progress)


def events(phase: str) -> list[str]:
    with db.transaction() as session:
        return [event.message for event in job_events.attempts(session, JOB, phase=phase)]


def age_events(seconds: float) -> None:
    """Make all events older."""
    with db.transaction() as session:
        for event in session.query(JobEvent):
            event.created_at -= timedelta(seconds=seconds)


def test_a_transient_failure_is_repeated_and_told() -> None:
    repeat(failing(*[TransientFailure("finetune: no space left")] * 5))
    assert len(events("waiting")) == 5
    assert events("waiting")[0] == "finetune: no space left; trying again in 0 s"


def test_pauses_grow_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [attempts._pause(number) for number in (1, 2, 3, 7, 8, 1000)] == [1, 2, 4, 60, 60, 60]


def test_waiting_ends_after_the_time_of_the_setting() -> None:
    error = TransientFailure("gate: the object store cannot be reached")

    def attempt() -> None:
        age_events(settings().step_retry_seconds / 2)
        raise error

    with pytest.raises(StepFailed, match=r"cannot be reached; it was tried again for 3600 s"):
        repeat(attempt)
    assert len(events("waiting")) == 2


def test_the_time_begins_anew_with_progress() -> None:
    reached = iter([10, 20, 30, 30, 30])

    def attempt() -> None:
        age_events(settings().step_retry_seconds / 2)
        raise TransientFailure("no space left")

    with pytest.raises(StepFailed):
        repeat(attempt, progress=lambda session: next(reached))
    assert len(events("waiting")) == 4, "three times further, and twice the half of its time"


def test_three_kills_are_poison() -> None:
    error = Killed("finetune: its process was killed by signal 9")
    with pytest.raises(Poisoned, match="happened 3 times, so it is not tried again"):
        repeat(failing(*[error] * 3))
    assert events("killed")[-1] == "finetune: its process was killed by signal 9 (3 of 3)"


def test_kills_are_counted_by_the_next_worker_too() -> None:
    error = Killed("finetune: its process was killed by signal 9")
    repeat(failing(error, error))
    with pytest.raises(Poisoned):
        repeat(failing(error))


def test_a_retry_forgives_kills() -> None:
    error = Killed("finetune: its process was killed by signal 9")
    repeat(failing(error, error))
    with db.transaction() as session:
        job_events.record(session, JOB, type="state", message="", data={"phase": "retried"})
    repeat(failing(error, error))


def test_a_permanent_failure_is_not_repeated() -> None:
    with pytest.raises(StepFailed, match="diverges"):
        repeat(failing(StepFailed("gate: diverges")))
    assert (events("waiting"), events("killed")) == ([], [])


def test_a_step_that_stored_its_result_is_not_repeated() -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        with db.transaction() as session:
            job_events.end_step(session, JOB, step=STEP)
        raise TransientFailure("its output could not be written")

    repeat(attempt)
    assert len(tries) == 1


def test_a_pause_ends_with_the_job_and_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE_SECONDS", 60.0)
    with pytest.raises(Cancelled):
        repeat(failing(TransientFailure("no space left")), cancelled=lambda: True)
    step_process.STOPPING.set()
    with pytest.raises(WorkerStopping):
        repeat(failing(TransientFailure("no space left")))


def test_work_in_the_worker_fails_like_that_of_a_process() -> None:
    def full() -> None:
        raise OutOfSpace("no space left below blobs")

    def broken() -> None:
        raise IndexError("of a bug")

    with pytest.raises(TransientFailure, match="publish: no space left below blobs"):
        attempts.in_this_process(full, step="publish")
    with pytest.raises(StepFailed, match="publish: IndexError") as caught:
        attempts.in_this_process(broken, step="publish")
    assert type(caught.value) is StepFailed


def test_each_attempt_is_a_span_of_the_requests_trace(spans: InMemorySpanExporter) -> None:
    with tracing.span("request"), db.transaction() as session:
        job_events.record_trace(session, JOB)
    repeat(failing(TransientFailure("away")))
    request, first, second = spans.get_finished_spans()
    with db.transaction() as session:
        [asked, *_] = job_events.milestones(session, JOB)
    assert asked.message == f"trace {request.context.trace_id:032x}"
    assert {first.name, second.name} == {"step finetune"}
    assert (first.status.is_ok, second.status.is_ok) == (False, True)
    for attempt in (first, second):
        assert attempt.parent is not None
        assert attempt.parent.span_id == request.context.span_id


def test_a_job_without_a_trace_begins_one(spans: InMemorySpanExporter) -> None:
    repeat(failing())
    (attempt,) = spans.get_finished_spans()
    assert attempt.parent is None
