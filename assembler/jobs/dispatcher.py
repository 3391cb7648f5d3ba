"""Turn rows that wait for a job into workflows, and settle rows whose workflow was lost.

The process that writes a row does not start the job; any worker does. The id of the workflow
depends on the row alone, so two workers make one job of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from dbos import DBOSClient
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from assembler.jobs import job_ids, queues, registration_workflows
from assembler.mixes import job_events, mix_state
from assembler.routing.embedder import embedders
from assembler.tables import UNFINISHED_STATES, MixState, MixVersion
from registry.catalog import embeddings, experts
from registry.database import db
from registry.database.tables import (
    DomainEmbedding,
    Expert,
    ExpertVersion,
    Family,
    Projection,
    ProjectionState,
    VersionState,
)

log = structlog.get_logger(__name__)

ENDED = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}
LOST = "the job ended without a result; the worker's log says why"


@dataclass(frozen=True)
class Wanted:
    """A job that a row waits for."""

    workflow: str
    queue: str
    job_id: str
    target_id: int


def enqueue(client: DBOSClient) -> None:
    """Enqueue a workflow for every row that waits for one, and settle rows whose workflow ended."""
    with db.transaction() as session:
        wanted = list(_wanted(session))
    if not wanted:
        return
    found = client.list_workflows(
        workflow_ids=[job.job_id for job in wanted], load_input=False, load_output=False
    )
    statuses = {workflow.workflow_id: workflow.status for workflow in found}
    for job in wanted:
        status = statuses.get(job.job_id)
        if status in ENDED and _settle(job, status):
            client.delete_workflow(job.job_id)
            status = None
        if status is None:
            _enqueue(client, job)


def _wanted(session: Session) -> Iterator[Wanted]:
    mixes = select(MixVersion.id, MixVersion.job_id).where(MixVersion.state.in_(UNFINISHED_STATES))
    for version_id, job_id in session.execute(mixes.order_by(MixVersion.id)):
        yield Wanted(queues.MAKE_MIX, queues.HEAVY, job_id, version_id)
    yield from _wanted_registrations(session)


def _wanted_registrations(session: Session) -> Iterator[Wanted]:
    untrained = (ProjectionState.QUEUED, ProjectionState.TRAINING)
    for projection in session.scalars(select(Projection).where(Projection.state.in_(untrained))):
        job_id = job_ids.of_projection(projection)
        yield Wanted(queues.TRAIN_PROJECTION, queues.HEAVY, job_id, projection.id)
    for family in session.scalars(select(Family).where(Family.state == VersionState.CHECKING)):
        yield Wanted(queues.CHECK_FAMILY, queues.SHORT, job_ids.of_family(family), family.id)
    importing = select(ExpertVersion).where(ExpertVersion.state == VersionState.IMPORTING)
    for version in session.scalars(importing):
        job_id = job_ids.of_import(version)
        yield Wanted(queues.IMPORT_EXPERT, queues.IMPORTS, job_id, version.id)
    checking = select(ExpertVersion).where(ExpertVersion.state == VersionState.CHECKING)
    for version in session.scalars(checking):
        yield Wanted(queues.CHECK_EXPERT, queues.SHORT, job_ids.of_check(version), version.id)
    for version in _unembedded(session):
        yield Wanted(queues.EMBED_DOMAIN, queues.SHORT, job_ids.of_embedding(version), version.id)


def _unembedded(session: Session) -> Iterator[ExpertVersion]:
    """Yield the versions whose domain has to be embedded by the current embedders.

    A ready version that other embedders have embedded is not ready any more. A retired one stays in
    the mixes that have it, so it is embedded too, unless that has failed. One whose documents are
    forgotten cannot be embedded again.
    """
    yield from session.scalars(
        select(ExpertVersion).where(ExpertVersion.state == VersionState.EMBEDDING)
    )
    retired = and_(
        ExpertVersion.state == VersionState.RETIRED,
        ExpertVersion.ready_at.is_not(None),
        ExpertVersion.error.is_(None),
    )
    for family in session.scalars(select(Family).where(Family.state == VersionState.READY)):
        embedding = select(DomainEmbedding.id).where(
            DomainEmbedding.expert_version_id == ExpertVersion.id,
            embeddings.made_by(embedders(family.seed_digest)),
        )
        outdated = session.scalars(
            select(ExpertVersion)
            .join(ExpertVersion.expert)
            .where(
                Expert.family_id == family.id,
                or_(ExpertVersion.state == VersionState.READY, retired),
                ExpertVersion.documents_forgotten_at.is_(None),
                ~embedding.exists(),
            )
        ).all()
        experts.mark_outdated(session, [version.id for version in outdated])
        yield from outdated


def _enqueue(client: DBOSClient, job: Wanted) -> None:
    client.enqueue(
        {
            "workflow_name": job.workflow,
            "queue_name": job.queue,
            "workflow_id": job.job_id,
            "app_version": queues.APPLICATION_VERSION,
        },
        job.target_id,
    )
    log.info("job enqueued", job_id=job.job_id, workflow=job.workflow)


def _settle(job: Wanted, status: str) -> bool:
    """Mark a row whose workflow has ended; return True if the row waits for a new workflow.

    The row is read again under a lock, since the job may have ended it in the meantime.
    """
    if job.workflow != queues.MAKE_MIX:
        with db.transaction() as session:
            still_wanted = job in _wanted_registrations(session)
        if still_wanted:
            registration_workflows.fail(job.workflow, job.target_id, error=LOST)
        return False
    with db.transaction() as session:
        version = mix_state.locked(session, job.target_id)
        if job_events.newest_phase(session, version.job_id) == "retried":
            # Recorded so that a workflow that is lost again ends the mix.
            data = {"phase": "requeued"}
            job_events.record(
                session, version.job_id, type="state", message="queued again", data=data
            )
            return True
        state = MixState.CANCELLED if status == "CANCELLED" else MixState.FAILED
        error = LOST if state is MixState.FAILED else None
        mix_state.finish(session, job.target_id, state=state, error=error)
    return False
