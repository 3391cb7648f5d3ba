"""What mixes of a family must reach, in numbered versions; a recipe takes the newest's content.

So a mix keeps the policy that it was asked for under, whatever becomes of the family's.
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
    """A new version, the default policy with `changes`; one equal to the newest is that.

    Raises NotFound, and InvalidInput with all that is wrong.
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
    """The newest, if there is one."""
    return next(iter(find_all(session, family)), None)


def find_all(session: Session, family: str) -> Sequence[FamilyPolicy]:
    """Newest first."""
    return session.scalars(
        select(FamilyPolicy)
        .join(FamilyPolicy.family)
        .where(Family.name == family)
        .options(contains_eager(FamilyPolicy.family))
        .order_by(FamilyPolicy.number.desc())
    ).all()


def content(session: Session, family: str) -> dict[str, Any]:
    """The fields of the newest; none, which leaves the defaults, where there is none."""
    newest = find(session, family)
    return {} if newest is None else newest.policy
