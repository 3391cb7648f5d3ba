"""Requests to change a finished mix: add, remove or replace one expert."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from assembler.mixes import mixes, new_mix, selection
from assembler.mixes.new_mix import MIN_EXPERTS, ResolvedRequest
from assembler.mixes.selection import Selection
from assembler.recipes import field_changes, presets
from assembler.recipes.recipe import Recipe
from assembler.routing.embedder import outdated
from assembler.tables import MixVersion
from engine.gates.policy import Policy
from registry.blobs.blobs import BlobStore
from registry.catalog import experts, projections
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem, pointer
from registry.names import parse_ref

# Pointer to the experts that stay.
BASE = "/base"


@dataclass(frozen=True, kw_only=True)
class MixChange:
    """A request to change the experts of the finished mix `base`; nothing is checked yet.

    `joining` is added, `leaving` is removed. With both, the new expert takes the place of the old
    one; it may be another version of the same expert. The assembly is not changed. The other
    experts keep what the base has learned, and may have been retired since. `name` defaults to the
    base's. `finetune` changes fields of the preset, `gates` fields of the base's policy. The mix is
    compressed only if `compress` says so; it is made from the base before its compression. `others`
    names fields of the request that cannot be changed.
    """

    base: str
    joining: str | None = None
    leaving: str | None = None
    name: str | None = None
    finetune: Mapping[str, Any] = field(default_factory=dict)
    compress: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[str, Any] = field(default_factory=dict)
    others: Sequence[str] = ()

    @property
    def joining_at(self) -> str:
        """Return the pointer to the field that names the new expert."""
        return "/expert" if self.leaving is None else "/by"

    def read(self, session: Session, blobs: BlobStore) -> ResolvedRequest:
        try:
            base, known = base_of(session, self.base)
        except (NotFound, Conflict, InvalidInput) as error:
            return self._read_without_base(session, blobs, error)
        members, pointers, wrong_members = self._members(known)
        changes, problems = self._fields(known, num_experts=len(members))
        problems += wrong_members
        name = self.name or base.mix.name
        selected = selection.select(
            session,
            blobs,
            name=name,
            family=known.family,
            experts=members,
            pointers=pointers,
            needs_projection=False,
            kept=known.experts,
        )
        problems += [*selected.problems, *self._unchanged(selected, known)]
        changes |= {
            "base": mixes.ref_of(base),
            "experts": members if problems else selected.experts,
        }
        recipe = known.model_copy(update=changes)
        # All other fields are the base's, so only the number of experts can contradict them.
        problems += [
            Problem("/expert", f"{contradiction.pointer[1:]} {contradiction.detail}")
            for contradiction in recipe.contradictions()
        ]
        return new_mix.conclude(session, blobs, name, selected, recipe=recipe, problems=problems)

    def _read_without_base(
        self, session: Session, blobs: BlobStore, error: NexusmixError
    ) -> ResolvedRequest:
        _, problems = self._fields(None, num_experts=MIN_EXPERTS)
        joining = [] if self.joining is None else [self.joining]
        selected = selection.select(
            session,
            blobs,
            name=self.name,
            family=None,
            experts=joining,
            pointers=[self.joining_at for _ in joining],
            needs_projection=False,
        )
        return ResolvedRequest(
            name=self.name or self.base.partition("@")[0],
            family=None,
            members=selected.members,
            problems=(Problem(BASE, error.detail), *problems, *selected.problems),
            blueprint=None,
            error=error,
        )

    def _fields(
        self, known: Recipe | None, *, num_experts: int
    ) -> tuple[dict[str, Any], list[Problem]]:
        preset = presets.DEFAULT if known is None else known.preset
        finetune, wrong_finetune = presets.read_finetune(
            preset, self.finetune, num_experts=num_experts
        )
        policy = {} if known is None else known.gates.model_dump()
        wanted, wrong_compression = presets.read_compression(self.compress)
        gates, wrong_gates = field_changes.read(Policy, policy, self.gates, at="gates")
        wrong = [
            Problem(pointer(other), "is not changed: a mix stays assembled as its base is")
            for other in self.others
        ]
        changes = {"finetune": finetune, "compress": wanted, "gates": gates}
        return changes, [*wrong, *wrong_finetune, *wrong_compression, *wrong_gates]

    def _members(self, known: Recipe) -> tuple[tuple[str, ...], list[str], list[Problem]]:
        """Return the experts of the changed mix, a pointer for each, and the problems."""
        problems: list[Problem] = []
        members, pointers = list(known.experts), [BASE] * len(known.experts)
        place = len(members)
        if self.leaving is not None:
            leaving = _member(known, self.leaving)
            if leaving is None:
                detail = f"{self.leaving!r} is not in the mix; its experts are {', '.join(members)}"
                problems.append(Problem("/expert", detail))
            else:
                place = members.index(leaving)
                del members[place], pointers[place]
        if self.joining is not None:
            name = self.joining.partition("@")[0]
            same = next((ref for ref in members if parse_ref(ref)[0] == name), None)
            if same is None:
                members.insert(place, self.joining)
                pointers.insert(place, self.joining_at)
            else:
                detail = f"{same} is in the mix already; use replace to change its version"
                problems.append(Problem(self.joining_at, detail))
        elif len(members) < MIN_EXPERTS:
            detail = f"{self.leaving} cannot be removed: a mix has at least {MIN_EXPERTS} experts"
            problems.append(Problem("/expert", detail))
        return tuple(members), pointers, problems

    def _unchanged(self, selected: Selection, known: Recipe) -> Iterator[Problem]:
        """Report a new expert that is in the mix already: the change would make the same mix."""
        for member in selected.members:
            ref = experts.ref_of(member.version)
            if member.pointer != BASE and ref in known.experts:
                yield Problem(member.pointer, f"{ref} is in the mix already")


def base_of(session: Session, ref: str) -> tuple[MixVersion, Recipe]:
    """Return a finished mix and its recipe. Raises InvalidInput, NotFound and Conflict."""
    base = mixes.get(session, ref)
    recipe = Recipe.model_validate(base.recipe)
    if base.artifact_id is None:
        raise Conflict(
            f"{mixes.ref_of(base)} is {base.state}: only a version that has passed its gate can"
            " be changed"
        )
    if recipe.kind == "dense_merge":
        raise Conflict(f"{mixes.ref_of(base)} is a plain mean, which keeps no expert apart")
    if recipe.projection is not None:
        projection = projections.pin(session, recipe.projection)
        if detail := outdated(projection):
            raise Conflict(
                f"{mixes.ref_of(base)} cannot be changed: {detail}; make the mix anew, of all its"
                " experts"
            )
    return base, recipe


def _member(recipe: Recipe, expert: str) -> str | None:
    """Return the recipe's pinned expert that `expert`, `name` or `name@number`, names."""
    return next((ref for ref in recipe.experts if expert in (ref, parse_ref(ref)[0])), None)
