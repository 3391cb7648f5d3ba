"""Families: a seed model and the experts that branch from it."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.database.tables import Family, VersionState
from registry.errors import Conflict, NotFound


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
        raise Conflict(f"the seed of family {name!r} is {family.state.value}, not ready")
    return family


def find_all(session: Session) -> Sequence[Family]:
    """Return all families, sorted by name."""
    return session.scalars(select(Family).order_by(Family.name)).all()


def lock(session: Session, family_id: int) -> None:
    """Lock the row of a family until the transaction ends, so that numbers are given once."""
    session.execute(select(Family.id).where(Family.id == family_id).with_for_update())
