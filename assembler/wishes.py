"""How a mix is asked to be made: a preset or a base, and changes to it, with all that is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from assembler import mixes, presets
from assembler.recipe import Assembly, Finetune, Preset, Recipe
from engine.gates import Policy
from registry.errors import InvalidInput, NexusmixError, Problem, pointer


@dataclass(frozen=True, kw_only=True)
class Wish:
    """`base` is the recipe of the mix version `base_ref`, which is changed; None of a new mix."""

    family: str
    assembly: Assembly
    finetune: Finetune
    gates: Policy
    base_ref: str | None
    base: Recipe | None

    def recipe(self, experts: Sequence[str], *, projection: str | None) -> Recipe:
        """With just these experts; a mix that is changed stays with its own projection."""
        if self.base is not None:
            changes = {
                "base": self.base_ref,
                "experts": tuple(experts),
                "finetune": self.finetune,
                "gates": self.gates,
            }
            return self.base.model_copy(update=changes)
        return Recipe(
            **self.assembly.model_dump(),
            family=self.family,
            experts=tuple(experts),
            projection=projection,
            finetune=self.finetune,
            gates=self.gates,
        )


def read(
    session: Session,
    *,
    family: str,
    preset: Preset,
    assembly: Mapping[str, Any] | None,
    finetune: Mapping[str, Any] | None,
    gates: Mapping[str, Any] | None,
    base: str | None,
) -> tuple[Wish, list[Problem]]:
    """The wish, without those of its parts that are wrong, and what is wrong with them."""
    problems: list[Problem] = []
    ref, known = None, None
    if base is None:
        made, training = presets.assembly(preset), presets.finetune(preset)
        try:
            made = presets.assembly(preset, assembly)
        except InvalidInput as error:
            problems += error.problems
    else:
        ref, known, problems = _base(session, base, family=family)
        problems += [Problem(pointer(field), f"is as {base} has it") for field in assembly or {}]
        made, training = _assembly_of(known), presets.finetune(known.preset if known else preset)
    try:
        training = presets.finetune(made.preset, finetune)
    except InvalidInput as error:
        problems += error.problems
    policy = known.gates if known else Policy()
    try:
        policy = presets.validated(Policy, policy.model_dump() | dict(gates or {}), at="gates")
    except InvalidInput as error:
        problems += error.problems
    wish = Wish(
        family=family,
        assembly=made,
        finetune=training,
        gates=policy,
        base_ref=ref,
        base=known,
    )
    return wish, problems


def _base(
    session: Session, base: str, *, family: str
) -> tuple[str | None, Recipe | None, list[Problem]]:
    try:
        version, known = mixes.base_of(session, base)
    except NexusmixError as error:
        return None, None, [Problem("/base", error.detail)]
    if known.family != family:
        return None, None, [Problem("/family", f"{base} is of family {known.family!r}")]
    return mixes.ref_of(version), known, []


def _assembly_of(recipe: Recipe | None) -> Assembly:
    if recipe is None:
        return Assembly()
    return Assembly(**{field: getattr(recipe, field) for field in Assembly.model_fields})
