"""Families: a seed model and the experts that branch from it.

A seed never changes once an expert was compared with it. Before that the family can be replaced,
by registering its name again, and deleted.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, exists, select
from sqlalchemy.orm import Session

from registry.database.tables import (
    DomainEmbedding,
    Expert,
    ExpertVersion,
    Family,
    Projection,
    VersionState,
)
from registry.errors import Conflict, NotFound

# Experts that an error names.
MAX_NAMED = 5


def find(session: Session, name: str) -> Family:
    """Return a family by its name. Raises NotFound."""
    family = session.scalar(select(Family).where(Family.name == name))
    if family is None:
        raise NotFound(f"no family {name!r}")
    return family


def find_ready(session: Session, name: str) -> Family:
    """Return a family whose seed is complete. Raises NotFound, and Conflict if it is not."""
    family = find(session, name)
    if family.state is not VersionState.READY:
        reason = f": {family.error}" if family.error else ""
        raise Conflict(f"the seed of family {name!r} is {family.state.value}, not ready{reason}")
    return family


def find_all(session: Session) -> Sequence[Family]:
    """Return all families, sorted by name."""
    return session.scalars(select(Family).order_by(Family.name)).all()


def lock(session: Session, family_id: int) -> Family:
    """Return a family whose row is locked until the transaction ends. Raises NotFound."""
    family = session.get(Family, family_id, with_for_update=True, populate_existing=True)
    if family is None:
        raise NotFound(f"no family {family_id}")
    return family


def users(session: Session, family: Family) -> Sequence[str]:
    """Return the names of the experts that need the seed of a family, sorted.

    An expert of which every version failed does not count.
    """
    experts = select(Expert.name).where(Expert.family_id == family.id, ~_never_used())
    return session.scalars(experts.order_by(Expert.name)).all()


def check_unused(session: Session, family: Family) -> None:
    """Raise Conflict with the experts that need the seed of a family."""
    names = users(session, family)
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        raise Conflict(
            f"family {family.name!r} is used by {', '.join(names[:MAX_NAMED])}{more}:"
            " a seed that experts branched from never changes"
        )


def delete_family(session: Session, name: str) -> None:
    """Delete a family that no expert uses, with its projections and policies.

    Raises NotFound, and Conflict with the experts that use it.
    """
    family = lock(session, find(session, name).id)
    check_unused(session, family)
    delete_failed_experts(session, family)
    session.delete(family)
    session.flush()


def replace_seed(session: Session, family: Family, *, seed_digest: str) -> None:
    """Give a family another seed. Raises Conflict with the experts that use the present one."""
    check_unused(session, family)
    delete_failed_experts(session, family)
    session.execute(delete(Projection).where(Projection.family_id == family.id))
    family.seed_digest, family.error = seed_digest, None
    family.state = VersionState.UPLOADING
    session.flush()


def delete_failed_experts(session: Session, family: Family, *, name: str | None = None) -> None:
    """Delete the experts of a family, or the one with a name, of which every version failed."""
    failed = select(Expert.id).where(Expert.family_id == family.id, _never_used())
    if name is not None:
        failed = failed.where(Expert.name == name)
    ids = session.scalars(failed).all()
    versions = select(ExpertVersion.id).where(ExpertVersion.expert_id.in_(ids))
    session.execute(delete(DomainEmbedding).where(DomainEmbedding.expert_version_id.in_(versions)))
    session.execute(delete(ExpertVersion).where(ExpertVersion.expert_id.in_(ids)))
    session.execute(delete(Expert).where(Expert.id.in_(ids)))


def mark_ready(session: Session, family_id: int, *, seed_digest: str) -> None:
    """Record that a seed was checked, unless another one has replaced it."""
    family = lock(session, family_id)
    if family.state is VersionState.CHECKING and family.seed_digest == seed_digest:
        family.state, family.error = VersionState.READY, None
        session.flush()


def mark_failed(session: Session, family_id: int, *, error: str) -> None:
    """Record that the seed of a family was refused, and why."""
    family = lock(session, family_id)
    if family.state is VersionState.CHECKING:
        family.state, family.error = VersionState.FAILED, error
        session.flush()


def note(session: Session, family_id: int, *, error: str) -> None:
    """Record why the check of a seed is tried again."""
    family = lock(session, family_id)
    if family.state is VersionState.CHECKING:
        family.error = error
        session.flush()


def retry(session: Session, name: str) -> Family:
    """Check the seed of a family that failed once more. Any other family is returned as it is.

    Raises NotFound, and Conflict if the seed is still uploading.
    """
    family = lock(session, find(session, name).id)
    if family.state is VersionState.UPLOADING:
        raise Conflict(f"the seed of family {name!r} was not sent completely: register it again")
    if family.state is VersionState.FAILED:
        begin_checks(family)
    session.flush()
    return family


def begin_checks(family: Family) -> None:
    """Have the seed of a family checked whose bytes were all sent."""
    # Each check is a job of its own, also that of a seed that replaced another.
    family.num_retries += 1
    family.state, family.error = VersionState.CHECKING, None


def _never_used() -> ColumnElement[bool]:
    """Return the SQL condition that no version of an expert was ever anything but refused."""
    used = exists().where(
        ExpertVersion.expert_id == Expert.id,
        ~and_(ExpertVersion.state == VersionState.FAILED, ExpertVersion.ready_at.is_(None)),
    )
    return ~used
