"""Resolve a request for a mix once: look up and pin all that it names, and collect all problems.

A mix is made from a resolved request without problems, and a plan shows a resolved request, so both
report the same problems.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy.orm import Session

from assembler.assembly.blueprint import Blueprint
from assembler.assembly.inputs import gather
from assembler.mixes import context_length, selection, text_budget
from assembler.mixes.selection import Member, Selection
from assembler.recipes import family_policies, field_changes, presets
from assembler.recipes.recipe import Recipe
from assembler.training.parallelism import Parallelism
from assembler.training.trainable import has_part
from engine.compression import int8_units
from engine.gates.policy import Policy
from registry.blobs.blobs import BlobStore
from registry.catalog import experts, projections
from registry.database.tables import Family
from registry.errors import InvalidCheckpoint, InvalidInput, NexusmixError, Problem, pointer

MIN_EXPERTS = 2


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """The result of resolving a request; it has a blueprint only if it has no problems.

    `error` says why a change has no base: the base is unknown or unfinished.
    """

    name: str
    family: Family | None
    members: tuple[Member, ...]
    problems: tuple[Problem, ...]
    blueprint: Blueprint | None
    error: NexusmixError | None = None

    @property
    def experts(self) -> tuple[str, ...]:
        """Return the experts that were found, pinned."""
        return tuple(experts.ref_of(member.version) for member in self.members)

    def checked(self) -> Blueprint:
        """Return the blueprint. Raises InvalidInput with all problems, or `error` with the same."""
        if self.blueprint is not None:
            return self.blueprint
        if self.error is not None:
            raise type(self.error)(self.error.detail, problems=self.problems)
        raise InvalidInput("this mix cannot be made", problems=self.problems)


class MixSpec(Protocol):
    """A request for a new mix, or for a change of one."""

    def read(self, session: Session, blobs: BlobStore) -> ResolvedRequest:
        """Resolve the request. Problems of the request are returned, never raised."""


@dataclass(frozen=True, kw_only=True)
class NewMix:
    """A request for a new mix; nothing is checked yet.

    `experts` are `name`, which means its newest version, or `name@number`. The projection is the
    family's newest. `assembly` and `finetune` change fields of the preset, `gates` fields of the
    family's newest policy. An empty `compress` means no compression.
    """

    name: str
    family: str
    experts: Sequence[str]
    preset: str = "nexus"
    assembly: Mapping[str, Any] = field(default_factory=dict)
    finetune: Mapping[str, Any] = field(default_factory=dict)
    compress: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[str, Any] = field(default_factory=dict)

    def read(self, session: Session, blobs: BlobStore) -> ResolvedRequest:
        preset, problems = presets.find(self.preset)
        assembly, wrong_assembly = presets.read_assembly(preset, self.assembly)
        finetune, wrong_finetune = presets.read_finetune(
            preset, self.finetune, num_experts=len(self.experts)
        )
        wanted, wrong_compression = presets.read_compression(self.compress)
        gates, wrong_gates = field_changes.read(
            Policy, family_policies.content(session, self.family), self.gates, at="gates"
        )
        problems += [*wrong_assembly, *wrong_finetune, *wrong_compression, *wrong_gates]
        if len(self.experts) < MIN_EXPERTS:
            detail = f"needs at least {MIN_EXPERTS} experts, got {len(self.experts)}"
            problems.append(Problem("/experts", detail))
        selected = selection.select(
            session,
            blobs,
            name=self.name,
            family=self.family,
            experts=self.experts,
            pointers=[pointer("experts", number) for number in range(len(self.experts))],
            needs_projection=assembly.needs_projection,
        )
        problems += selected.problems
        recipe = None
        if len(self.experts) >= MIN_EXPERTS:
            recipe = Recipe(
                **assembly.model_dump(),
                family=self.family,
                # If some were not found, the requested names still give the number of experts.
                experts=tuple(self.experts) if problems else selected.experts,
                projection=projections.ref_of(selected.projection) if selected.projection else None,
                finetune=finetune,
                compress=wanted,
                gates=gates,
            )
            # A wrong field was left out, so a contradiction with its default is not reported.
            wrong = {problem.pointer for problem in problems}
            problems += [p for p in recipe.contradictions() if p.pointer not in wrong]
        return conclude(session, blobs, self.name, selected, recipe=recipe, problems=problems)


def conclude(
    session: Session,
    blobs: BlobStore,
    name: str,
    selected: Selection,
    *,
    recipe: Recipe | None,
    problems: Iterable[Problem],
) -> ResolvedRequest:
    """Return the resolved request, after the checks that need the whole mix."""
    problems = tuple(problems)
    blueprint = None
    if recipe is not None and not problems:
        whole = Blueprint.of(gather(session, recipe), blobs)
        problems = (*_training_problems(whole), *_compression_problems(whole))
        problems += tuple(context_length.problems(recipe, whole.mix))
        problems += tuple(text_budget.problems(selected.members, recipe, whole.seed, blobs))
        blueprint = None if problems else whole
    return ResolvedRequest(
        name=name,
        family=selected.family,
        members=selected.members,
        problems=problems,
        blueprint=blueprint,
    )


def _training_problems(blueprint: Blueprint) -> Iterable[Problem]:
    training = blueprint.recipe.finetune
    if not training.num_steps:
        return
    if not has_part(blueprint.mix, training.train):
        yield Problem("/finetune/train", f"this mix has no part {training.train!r}")
    yield from Parallelism.of_settings().problems(
        num_experts=blueprint.mix.num_experts, batch_size=training.batch_size
    )


def _compression_problems(blueprint: Blueprint) -> Iterable[Problem]:
    wanted = blueprint.recipe.compress
    if wanted is None:
        return
    try:
        int8_units.check_base(blueprint.mix)
    except InvalidCheckpoint as error:
        yield Problem("/compress", error.detail)
        return
    units = int8_units.units_of(blueprint.mix, blueprint.tensor_bytes, wanted.target)
    try:
        wanted.check(units, num_bytes=blueprint.num_bytes)
    except InvalidInput as error:
        for problem in error.problems or (Problem("", error.detail),):
            yield Problem(f"/compress{problem.pointer}", problem.detail)
