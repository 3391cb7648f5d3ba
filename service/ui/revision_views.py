"""The base versions of a mix, and the changes that its page offers."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.mix_change import base_of
from assembler.mixes.new_mix import MIN_EXPERTS
from assembler.recipes.recipe import Recipe
from assembler.tables import MixVersion
from registry.catalog import experts
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import Conflict


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An expert that can be added."""

    ref: str
    description: str


@dataclass(frozen=True, kw_only=True)
class RevisionChoices:
    """The changes that can be requested, each expert as NAME@NUMBER.

    `joining` can be added. `renewing` are newer versions of experts in the mix. `leaving` are its
    experts. `can_shrink` is False when the mix has the smallest number of experts.
    """

    joining: tuple[Candidate, ...]
    renewing: tuple[Candidate, ...]
    leaving: tuple[str, ...]
    can_shrink: bool


def bases(session: Session, recipe: Recipe) -> list[str]:
    """Return the version that a mix was made from, the base of that version, and so on."""
    refs: list[str] = []
    while recipe.base is not None:
        version = mixes.get(session, recipe.base)
        recipe = Recipe.model_validate(version.recipe)
        refs.append(mixes.ref_of(version))
    return refs


def choices(session: Session, version: MixVersion) -> RevisionChoices | None:
    """Return the possible changes of a mix; None if it cannot be changed."""
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


def _newest(session: Session, family: str) -> Sequence[ExpertVersion]:
    """Return the newest ready version of each expert of a family."""
    rows = experts.find_page(session, family=family, limit=None)
    names = [expert.name for expert in rows]
    return experts.find_newest(session, names, state=VersionState.READY)


def _candidate(version: ExpertVersion) -> Candidate:
    description = version.description or version.license
    return Candidate(ref=experts.ref_of(version), description=description)
