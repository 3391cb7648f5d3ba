"""A finished mix with other experts: one more, one fewer, or one in the place of another."""

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

# Where the experts that stay come from.
BASE = "/base"


@dataclass(frozen=True, kw_only=True)
class MixChange:
    """A change of the finished mix `base`, which is assembled as it was; nothing was checked yet.

    An expert is `joining`, or `leaving`, or one takes the other's place, and may be another version
    of the same. The base's other experts keep what they have learned, and are not asked whether
    they could be mixed today: one that was retired since stays. `name` is by default the base's;
    `finetune` changes fields of the preset's, `gates` those of the base's; it is compressed only if
    `compress` asks for that, and made from what the base was before its own compression; `others`
    are fields that were sent and cannot be changed.
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
        """Where the request names who joins."""
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
        found = selection.select(
            session,
            blobs,
            name=name,
            family=known.family,
            experts=members,
            pointers=pointers,
            needs_projection=False,
            kept=known.experts,
        )
        problems += [*found.problems, *self._idle(found, known)]
        changes |= {
            "base": mixes.ref_of(base),
            "experts": members if problems else found.experts,
        }
        recipe = known.model_copy(update=changes)
        # Its fields are the base's: what fits no longer is the number of experts.
        problems += [
            Problem("/expert", f"{contradiction.pointer[1:]} {contradiction.detail}")
            for contradiction in recipe.contradictions()
        ]
        return new_mix.conclude(session, blobs, name, found, recipe=recipe, problems=problems)

    def _read_without_base(
        self, session: Session, blobs: BlobStore, error: NexusmixError
    ) -> ResolvedRequest:
        _, problems = self._fields(None, num_experts=MIN_EXPERTS)
        joining = [] if self.joining is None else [self.joining]
        found = selection.select(
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
            members=found.members,
            problems=(Problem(BASE, error.detail), *problems, *found.problems),
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
        """All experts afterwards, where each is named, and who cannot join or leave."""
        problems: list[Problem] = []
        members, pointers = list(known.experts), [BASE] * len(known.experts)
        place = len(members)
        if self.leaving is not None:
            leaving = _member(known, self.leaving)
            if leaving is None:
                detail = f"{self.leaving!r} is none of the mix's experts: {', '.join(members)}"
                problems.append(Problem("/expert", detail))
            else:
                place = members.index(leaving)
                del members[place], pointers[place]
        if self.joining is not None:
            name = self.joining.partition("@")[0]
            same = next((own for own in members if parse_ref(own)[0] == name), None)
            if same is None:
                members.insert(place, self.joining)
                pointers.insert(place, self.joining_at)
            else:
                detail = f"{same} is in the mix already; replace it to have another version"
                problems.append(Problem(self.joining_at, detail))
        elif len(members) < MIN_EXPERTS:
            detail = f"{self.leaving} cannot go: a mix has at least {MIN_EXPERTS} experts"
            problems.append(Problem("/expert", detail))
        return tuple(members), pointers, problems

    def _idle(self, found: Selection, known: Recipe) -> Iterator[Problem]:
        """An expert that takes its own place would make the same mix once more."""
        for member in found.members:
            ref = experts.ref_of(member.version)
            if member.pointer != BASE and ref in known.experts:
                yield Problem(member.pointer, f"{ref} is in the mix already")


def base_of(session: Session, ref: str) -> tuple[MixVersion, Recipe]:
    """The finished mix and its recipe. Raises InvalidInput, NotFound and Conflict."""
    base = mixes.get(session, ref)
    recipe = Recipe.model_validate(base.recipe)
    if base.artifact_id is None:
        raise Conflict(
            f"{mixes.ref_of(base)} is {base.state}: only a version that has passed its gate is"
            " changed"
        )
    if recipe.preset == "merge":
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
    """Which of the recipe's experts, pinned, `name` or `name@number` is."""
    return next((own for own in recipe.experts if expert in (own, parse_ref(own)[0])), None)
