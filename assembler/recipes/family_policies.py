"""Gate policies of families, in numbered versions.

A recipe copies the fields of the newest version. So a mix keeps the policy of its request when the
family's policy changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, contains_eager

from assembler.recipes import field_changes
from assembler.tables import FamilyPolicy
from engine.gates.policy import Policy
from registry.catalog import families
from registry.database.tables import Family
from registry.errors import InvalidInput


def put(session: Session, family: str, changes: Mapping[str, Any]) -> FamilyPolicy:
    """Store the default policy with `changes` as a new version, and return it.

    If it equals the newest version, that one is returned. Raises NotFound for the family, and
    InvalidInput with every wrong field.
    """
    policy, problems = field_changes.read(Policy, {}, changes)
    if problems:
        raise InvalidInput("the policy is refused", problems=tuple(problems))
    owner = families.find(session, family)
    families.lock(session, owner.id)
    content = policy.model_dump(mode="json")
    newest = find(session, family)
    if newest is not None and newest.policy == content:
        return newest
    number = 1 if newest is None else newest.number + 1
    version = FamilyPolicy(family=owner, number=number, policy=content)
    session.add(version)
    session.flush()
    session.refresh(version, ["created_at"])
    return version


def find(session: Session, family: str) -> FamilyPolicy | None:
    """Return the newest version of a family's policy, None if there is none."""
    return next(iter(find_all(session, family)), None)


def find_all(session: Session, family: str) -> Sequence[FamilyPolicy]:
    """Return all versions of a family's policy, newest first."""
    return session.scalars(
        select(FamilyPolicy)
        .join(FamilyPolicy.family)
        .where(Family.name == family)
        .options(contains_eager(FamilyPolicy.family))
        .order_by(FamilyPolicy.number.desc())
    ).all()


def content(session: Session, family: str) -> dict[str, Any]:
    """Return the fields of a family's newest policy; empty, for the defaults, if it has none."""
    newest = find(session, family)
    return {} if newest is None else newest.policy
