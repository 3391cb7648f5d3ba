"""Seeds and versions that were never ready: how long they can go on, and what ends them.

An upload that was not completed can be completed, and one that was refused can be retried, for
`upload_days` after it was announced. Then house-keeping deletes its row and, after the grace
period, the blobs that nothing else needs. Announcing it again starts it anew.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.orm import Session

from registry.catalog import families
from registry.database.tables import (
    DomainEmbedding,
    Expert,
    ExpertVersion,
    Family,
    VersionState,
)
from registry.settings import settings

ENDING_STATES = (VersionState.UPLOADING, VersionState.FAILED)


def until(row: Family | ExpertVersion) -> datetime | None:
    """Return the time until which an upload can go on or be retried; None if it does not end.

    What is being checked, or was ready once, does not end.
    """
    was_ready = isinstance(row, ExpertVersion) and row.ready_at is not None
    if row.state not in ENDING_STATES or was_ready:
        return None
    return row.created_at + _lifetime()


def is_over(row: Family | ExpertVersion) -> bool:
    """Tell whether an upload may not go on any more."""
    limit = until(row)
    return limit is not None and limit < datetime.now(UTC)


def num_expired(session: Session) -> int:
    """Return the number of rows that `remove_expired` would delete."""
    versions = select(func.count()).select_from(ExpertVersion).where(_expired_version())
    return (session.scalar(versions) or 0) + len(_unused(session, lock=False))


def remove_expired(session: Session) -> int:
    """Delete the uploads whose time is over, with experts that have no version left."""
    ids = session.scalars(
        select(ExpertVersion.id).where(_expired_version()).with_for_update(skip_locked=True)
    ).all()
    of_expired = select(ExpertVersion.expert_id).where(ExpertVersion.id.in_(ids))
    owners = session.scalars(of_expired.distinct()).all()
    session.execute(delete(DomainEmbedding).where(DomainEmbedding.expert_version_id.in_(ids)))
    session.execute(delete(ExpertVersion).where(ExpertVersion.id.in_(ids)))
    for expert_id in owners:
        # Locked as an announcement locks it, so that no version is added meanwhile.
        session.execute(select(Expert.id).where(Expert.id == expert_id).with_for_update())
        left = select(ExpertVersion.id).where(ExpertVersion.expert_id == expert_id)
        if session.scalar(left.limit(1)) is None:
            session.execute(delete(Expert).where(Expert.id == expert_id))
    unused = _unused(session, lock=True)
    for family in unused:
        families.delete_failed_experts(session, family)
        session.delete(family)
    session.flush()
    return len(ids) + len(unused)


def _unused(session: Session, *, lock: bool) -> list[Family]:
    """Return the families whose time is over and that no expert uses."""
    query = select(Family).where(
        Family.state.in_(ENDING_STATES), Family.created_at < datetime.now(UTC) - _lifetime()
    )
    if lock:
        query = query.with_for_update(skip_locked=True)
    return [f for f in session.scalars(query).all() if not families.users(session, f)]


def _expired_version() -> ColumnElement[bool]:
    return and_(
        ExpertVersion.state.in_(ENDING_STATES),
        ExpertVersion.ready_at.is_(None),
        ExpertVersion.created_at < datetime.now(UTC) - _lifetime(),
    )


def _lifetime() -> timedelta:
    return timedelta(days=settings().upload_days)
