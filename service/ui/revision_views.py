"""Where a mix comes from and what may become of it: its bases, and the changes on offer."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.mix_change import base_of
from assembler.mixes.new_mix import MIN_EXPERTS
from assembler.recipes.recipe import Recipe
from assembler.tables import MixVersion
from registry.catalog import experts
from registry.database.tables import ExpertVersion
from registry.errors import Conflict

MAX_EXPERTS = 200


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An expert that may join."""

    ref: str
    description: str


@dataclass(frozen=True, kw_only=True)
class RevisionChoices:
    """Who may join, whose newer versions may take their own place, and who may leave; all pinned.

    A mix of as few experts as it can have loses none.
    """

    joining: tuple[Candidate, ...]
    renewing: tuple[Candidate, ...]
    leaving: tuple[str, ...]
    can_shrink: bool


def bases(session: Session, recipe: Recipe) -> list[str]:
    """The version a mix was made from, the one that was made from, and so on."""
    found: list[str] = []
    while recipe.base is not None:
        version = mixes.get(session, recipe.base)
        recipe = Recipe.model_validate(version.recipe)
        found.append(mixes.ref_of(version))
    return found


def choices(session: Session, version: MixVersion) -> RevisionChoices | None:
    """None of a mix that cannot be changed."""
    try:
        _, recipe = base_of(session, mixes.ref_of(version))
    except Conflict:
        return None
    newest = [v for v in _newest(session, recipe.family) if experts.ref_of(v) not in recipe.experts]
    return RevisionChoices(
        joining=tuple(_candidate(v) for v in newest if v.expert.name not in recipe.domains),
        renewing=tuple(_candidate(v) for v in newest if v.expert.name in recipe.domains),
        leaving=recipe.experts,
        can_shrink=len(recipe.experts) > MIN_EXPERTS,
    )


def _newest(session: Session, family: str) -> Iterator[ExpertVersion]:
    """The newest version that is ready of each expert."""
    for expert in experts.find_page(session, family=family, limit=MAX_EXPERTS):
        try:
            yield experts.pin(session, expert.name)
        except Conflict:
            continue


def _candidate(version: ExpertVersion) -> Candidate:
    expert = version.expert
    return Candidate(ref=experts.ref_of(version), description=expert.description or expert.license)
