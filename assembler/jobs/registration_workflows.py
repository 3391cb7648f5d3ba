"""The durable jobs of registrations: import, check, embed and measure experts, check seeds, learn
projections.

Each is one step. What it did is in the state of its row: the step itself moves it on, and a failure
is stored with its reason. `assembler.jobs.attempts` says what is tried again.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dbos import DBOS, SetWorkflowID
from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.jobs import attempts, job_ids, queues, step_process
from assembler.jobs.durable import durably
from assembler.jobs.registration_steps import CHECK_EXPERT, CHECK_FAMILY, EMBED, IMPORT, MEASURE
from assembler.jobs.step_errors import Killed, TransientFailure
from assembler.mixes import job_events
from registry.catalog import experts, families, projections
from registry.database.tables import (
    ExpertVersion,
    Family,
    Projection,
    ProjectionState,
    VersionState,
)
from registry.errors import NotFound, StepFailed
from registry.settings import settings

TRAIN = "train-projection"


# Stores an error in the row with an id.
Change = Callable[[Session, int, str], None]


@dataclass(frozen=True)
class _Work:
    """A step, and what its row says of it: whether it is wanted, why it is repeated or failed."""

    step: str
    is_wanted: Callable[[Session, int], bool]
    note: Change
    fail: Change


@DBOS.workflow(name=queues.CHECK_FAMILY)
def check_family(family_id: int) -> None:
    """Check the seed of a family."""
    check_seed(family_id, _job_id())


@DBOS.workflow(name=queues.IMPORT_EXPERT)
def import_expert(version_id: int) -> None:
    """Make the checkpoint of one version of an expert from its source."""
    import_version(version_id, _job_id())


@DBOS.workflow(name=queues.CHECK_EXPERT)
def check_expert(version_id: int) -> None:
    """Check one version of an expert."""
    check_version(version_id, _job_id())


@DBOS.workflow(name=queues.EMBED_DOMAIN)
def embed_domain(version_id: int) -> None:
    """Embed the domain of one version of an expert; nobody waits for its measurement after that."""
    embed(version_id, _job_id())
    if settings().measure_experts:
        with SetWorkflowID(job_ids.of_measurement(version_id)):
            DBOS.enqueue_workflow(queues.MEASUREMENTS, measure_expert, version_id)


@DBOS.workflow(name=queues.MEASURE_EXPERT)
def measure_expert(version_id: int) -> None:
    """Measure what gates need to know of one version of an expert."""
    measure(version_id, _job_id())


@DBOS.workflow(name=queues.TRAIN_PROJECTION)
def train_projection(projection_id: int) -> None:
    """Learn one version of a family's projection."""
    train(projection_id, _job_id())


@DBOS.step()
def check_seed(family_id: int, job_id: str) -> None:
    _run(_CHECK_FAMILY, family_id, job_id)


@DBOS.step()
def import_version(version_id: int, job_id: str) -> None:
    _run(_IMPORT, version_id, job_id)


@DBOS.step()
def check_version(version_id: int, job_id: str) -> None:
    _run(_CHECK_EXPERT, version_id, job_id)


@DBOS.step()
def embed(version_id: int, job_id: str) -> None:
    _run(_EMBED, version_id, job_id)


@DBOS.step()
def measure(version_id: int, job_id: str) -> None:
    _run(_MEASURE, version_id, job_id)


@DBOS.step()
def train(projection_id: int, job_id: str) -> None:
    _run(_TRAIN, projection_id, job_id)


def fail(workflow: str, target_id: int, *, error: str) -> None:
    """Store why a job ended without a result."""
    _store(_OF_WORKFLOW[workflow].fail, target_id, error)


def _run(work: _Work, target_id: int, job_id: str) -> None:
    """Run a step in a child process until it ends or is given up."""

    def begin(session: Session) -> bool:
        wanted = work.is_wanted(session, target_id)
        return wanted and job_events.begin_step(session, job_id, step=work.step)

    def attempt() -> None:
        try:
            step_process.run(work.step, target_id, job_id=job_id, cancelled=_never)
        except (Killed, TransientFailure) as error:
            _store(work.note, target_id, _reason(work, error))
            raise

    if not durably(begin):
        return
    try:
        attempts.repeat(attempt, job_id=job_id, step=work.step, cancelled=_never)
    except StepFailed as error:
        reason = _reason(work, error)
        data = {"phase": "finished", "error": reason}
        durably(
            lambda session: job_events.record(
                session, job_id, type="state", message=reason, data=data
            )
        )
        _store(work.fail, target_id, reason)


def _store(change: Change, target_id: int, error: str) -> None:
    """Store an error in a row, unless the row was deleted meanwhile."""
    with suppress(NotFound):
        durably(lambda session: change(session, target_id, error))


def _reason(work: _Work, error: StepFailed) -> str:
    """Return the error without the name of the step, which the state of the row tells."""
    return error.detail.removeprefix(f"{work.step}: ")


def _job_id() -> str:
    job_id = DBOS.workflow_id
    assert job_id is not None, "called outside a workflow"
    return job_id


def _never() -> bool:
    return False


def _family_state(session: Session, family_id: int) -> VersionState | None:
    return session.scalar(select(Family.state).where(Family.id == family_id))


def _version_state(session: Session, version_id: int) -> VersionState | None:
    return session.scalar(select(ExpertVersion.state).where(ExpertVersion.id == version_id))


def _can_be_measured(session: Session, version_id: int) -> bool:
    version = session.get(ExpertVersion, version_id)
    if version is None or version.state is not VersionState.READY:
        return False
    return version.documents_forgotten_at is None


def _begin_training(session: Session, projection_id: int) -> bool:
    projection = session.get(Projection, projection_id)
    if projection is None or projection.state not in (
        ProjectionState.QUEUED,
        ProjectionState.TRAINING,
    ):
        return False
    projections.mark_training(session, projection)
    return True


_CHECK_FAMILY = _Work(
    CHECK_FAMILY,
    lambda session, row_id: _family_state(session, row_id) is VersionState.CHECKING,
    lambda session, row_id, error: families.note(session, row_id, error=error),
    lambda session, row_id, error: families.mark_failed(session, row_id, error=error),
)
_CHECK_EXPERT = _Work(
    CHECK_EXPERT,
    lambda session, row_id: _version_state(session, row_id) is VersionState.CHECKING,
    lambda session, row_id, error: experts.note(session, row_id, error=error),
    lambda session, row_id, error: experts.mark_failed(session, row_id, error=error),
)
_IMPORT = _Work(
    IMPORT,
    lambda session, row_id: _version_state(session, row_id) is VersionState.IMPORTING,
    _CHECK_EXPERT.note,
    _CHECK_EXPERT.fail,
)
_EMBED = _Work(
    EMBED,
    lambda session, row_id: (
        _version_state(session, row_id) in (VersionState.EMBEDDING, VersionState.RETIRED)
    ),
    _CHECK_EXPERT.note,
    _CHECK_EXPERT.fail,
)
# A gate measures what is missing, so nothing has to be known of a failure.
_MEASURE = _Work(MEASURE, _can_be_measured, lambda *_: None, lambda *_: None)
_TRAIN = _Work(
    TRAIN,
    _begin_training,
    lambda session, row_id, error: projections.note(
        session, projections.get(session, row_id), error=error
    ),
    lambda session, row_id, error: projections.mark_failed(
        session, projections.get(session, row_id), error=error
    ),
)
_OF_WORKFLOW = {
    queues.CHECK_FAMILY: _CHECK_FAMILY,
    queues.IMPORT_EXPERT: _IMPORT,
    queues.CHECK_EXPERT: _CHECK_EXPERT,
    queues.EMBED_DOMAIN: _EMBED,
    queues.TRAIN_PROJECTION: _TRAIN,
}
