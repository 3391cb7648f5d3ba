"""Projections of a family: versions of the map from domain embeddings to router rows.

A reference is `family@number`; `family` alone means its newest ready projection.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, contains_eager, joinedload

from registry.catalog import families
from registry.checkpoints.manifests import json_digest
from registry.database.tables import Family, Projection, ProjectionState
from registry.errors import Conflict, NotFound
from registry.names import parse_ref


def request(
    session: Session,
    *,
    family: str,
    documents_digest: str,
    embedder_digest: str,
    training: dict[str, Any],
) -> Projection:
    """Return the projection with exactly these inputs; add a queued one if there is none.

    A failed projection is queued again. Raises NotFound if the family does not exist, and Conflict
    if its seed is not ready.
    """
    owner = families.find_ready(session, family)
    families.lock(session, owner.id)
    inputs_digest = json_digest([owner.seed_digest, documents_digest, embedder_digest, training])
    known = session.scalar(
        select(Projection)
        .where(Projection.inputs_digest == inputs_digest, Projection.family_id == owner.id)
        .options(joinedload(Projection.family))
    )
    if known is not None:
        return _queue_again(session, known)
    last = session.scalar(
        select(func.max(Projection.number)).where(Projection.family_id == owner.id)
    )
    projection = Projection(
        family=owner,
        number=(last or 0) + 1,
        documents_digest=documents_digest,
        embedder_digest=embedder_digest,
        training=training,
        inputs_digest=inputs_digest,
    )
    session.add(projection)
    session.flush()
    return projection


def retry(session: Session, *, family: str, number: int) -> Projection:
    """Train a projection that failed once more. Any other one is returned as it is.

    Raises NotFound.
    """
    projection = find(session, family=family, number=number)
    session.refresh(projection, ["state", "num_retries"], with_for_update=True)
    return _queue_again(session, projection)


def get(session: Session, projection_id: int) -> Projection:
    """Return a projection by its id, with its family. Raises NotFound."""
    projection = session.get(Projection, projection_id, options=[joinedload(Projection.family)])
    if projection is None:
        raise NotFound(f"no projection {projection_id}")
    return projection


def find(session: Session, *, family: str, number: int) -> Projection:
    """Return a projection in any state, with its family. Raises NotFound."""
    projection = session.scalar(_of(family).where(Projection.number == number))
    if projection is None:
        raise NotFound(f"no projection {number} of family {family!r}")
    return projection


def find_all(session: Session, *, family: str) -> Sequence[Projection]:
    """Return all projections of a family, newest first. Raises NotFound for the family."""
    families.find(session, family)
    return session.scalars(_of(family)).all()


def pin(session: Session, ref: str) -> Projection:
    """Return a ready projection, with its family.

    Raises InvalidInput if `ref` is not a reference, NotFound, and Conflict if no such projection is
    ready.
    """
    name, number = parse_ref(ref)
    if number is not None:
        projection = find(session, family=name, number=number)
        if projection.state is not ProjectionState.READY:
            raise Conflict(f"projection {ref} is {projection.state.value}, not ready")
        return projection
    families.find(session, name)
    ready = session.scalar(_of(name).where(Projection.state == ProjectionState.READY).limit(1))
    if ready is None:
        newest = session.scalar(_of(name).limit(1))
        how = "train one first" if newest is None else f"{ref_of(newest)} is {newest.state.value}"
        raise Conflict(f"family {name!r} has no projection that is ready; {how}")
    return ready


def ref_of(projection: Projection) -> str:
    """Return the pinned reference of a projection: `family@number`."""
    return f"{projection.family.name}@{projection.number}"


def replace_documents(session: Session, projection: Projection, *, documents_digest: str) -> None:
    """Give a projection that was learned other documents to be learned from next.

    Raises Conflict while it is being learned from those that it has.
    """
    session.refresh(projection, ["state"], with_for_update=True)
    if projection.state in (ProjectionState.QUEUED, ProjectionState.TRAINING):
        raise Conflict(f"projection {ref_of(projection)} is learning from these documents: wait")
    projection.documents_digest = documents_digest
    session.flush()


def mark_training(session: Session, projection: Projection) -> None:
    """Record that the training of a projection has started."""
    projection.state = ProjectionState.TRAINING
    session.flush()


def mark_ready(
    session: Session, projection: Projection, *, manifest_digest: str, metrics: dict[str, Any]
) -> None:
    """Record the result of a projection's training: its manifest and its metrics."""
    projection.state = ProjectionState.READY
    projection.manifest_digest = manifest_digest
    projection.metrics = metrics
    projection.error = None
    projection.ready_at = datetime.now(UTC)
    session.flush()


def mark_failed(session: Session, projection: Projection, *, error: str) -> None:
    """Record that the training of a projection failed, and why."""
    projection.state = ProjectionState.FAILED
    projection.error = error
    session.flush()


def note(session: Session, projection: Projection, *, error: str) -> None:
    """Record why the training of a projection is tried again."""
    if projection.state in (ProjectionState.QUEUED, ProjectionState.TRAINING):
        projection.error = error
        session.flush()


def _queue_again(session: Session, projection: Projection) -> Projection:
    if projection.state is ProjectionState.FAILED:
        projection.state, projection.error = ProjectionState.QUEUED, None
        projection.num_retries += 1
        session.flush()
    return projection


def _of(family: str) -> Select[Projection]:
    return (
        select(Projection)
        .join(Projection.family)
        .where(Family.name == family)
        .options(contains_eager(Projection.family))
        .order_by(Projection.number.desc())
    )
