"""Turn rows that wait for a job into workflows, and settle rows whose workflow was lost.

The process that writes a row does not start the job; any worker does. The id of the workflow
depends on the row alone, so two workers make one job of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.jobs import queues
from assembler.mixes import job_events, mix_state
from assembler.routing.embedder import CAPTURE, embedder_digest, embedders
from assembler.tables import UNFINISHED_STATES, MixState, MixVersion
from registry.catalog import embeddings, projections
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

if TYPE_CHECKING:
    # Importing it takes half a second, and every step imports this module.
    from dbos import DBOSClient

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


def enqueue(client: "DBOSClient") -> None:
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


def embedding_job_id(version_id: int) -> str:
    return f"embed-{version_id}-{embedder_digest()[:12]}-{CAPTURE}"


def projection_job_id(projection_id: int) -> str:
    return f"projection-{projection_id}"


def _wanted(session: Session) -> Iterator[Wanted]:
    mixes = select(MixVersion.id, MixVersion.job_id).where(MixVersion.state.in_(UNFINISHED_STATES))
    for version_id, job_id in session.execute(mixes.order_by(MixVersion.id)):
        yield Wanted(queues.MAKE_MIX, queues.HEAVY, job_id, version_id)
    untrained = (ProjectionState.QUEUED, ProjectionState.TRAINING)
    for row_id in session.scalars(select(Projection.id).where(Projection.state.in_(untrained))):
        yield Wanted(queues.TRAIN_PROJECTION, queues.HEAVY, projection_job_id(row_id), row_id)
    for row_id in _unembedded(session):
        yield Wanted(queues.EMBED_DOMAIN, queues.SHORT, embedding_job_id(row_id), row_id)


def _unembedded(session: Session) -> Iterator[int]:
    """Yield the ids of expert versions without a domain embedding of the current embedders."""
    for family in session.scalars(select(Family).where(Family.state == VersionState.READY)):
        current = embedders(family.seed_digest)
        embedding = select(DomainEmbedding.id).where(
            DomainEmbedding.expert_version_id == ExpertVersion.id,
            embeddings.made_by(current),
        )
        yield from session.scalars(
            select(ExpertVersion.id)
            .join(ExpertVersion.expert)
            .where(
                Expert.family_id == family.id,
                # A retired version stays in the mixes that have it, so it is embedded too.
                ExpertVersion.state != VersionState.UPLOADING,
                ~embedding.exists(),
            )
        )


def _enqueue(client: "DBOSClient", job: Wanted) -> None:
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
    with db.transaction() as session:
        if job.workflow == queues.MAKE_MIX:
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
        if job.workflow == queues.TRAIN_PROJECTION:
            row = session.get_one(Projection, job.target_id, with_for_update=True)
            if row.state is ProjectionState.QUEUED:
                return True  # it failed before, and was requested again
            if row.state is ProjectionState.TRAINING:
                projections.mark_failed(session, row, error=LOST)
    return False
