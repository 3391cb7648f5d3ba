"""Presets as the pages show them, and where a recipe differs from its preset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assembler.recipes import field_changes, presets
from assembler.recipes.recipe import Preset, Recipe, Trained
from engine.gates.policy import Policy
from service.assignments import as_text


@dataclass(frozen=True, kw_only=True)
class PresetView:
    """A preset; `changed` are the fields that differ from the default preset, as FIELD=VALUE."""

    name: Preset
    description: str
    changed: tuple[str, ...]
    trains: Trained
    tokens_per_expert: int


def view(name: str) -> PresetView:
    """Return a preset by name; the default preset for an unknown name."""
    preset, _ = presets.find(name)
    return PresetView(
        name=preset,
        description=presets.DESCRIPTIONS[preset],
        changed=_assignments(presets.changed(preset)),
        trains=presets.finetune(preset, num_experts=1).train,
        tokens_per_expert=presets.tokens_per_expert(preset),
    )


def changed(recipe: Recipe) -> tuple[str, ...]:
    """Return the fields in which a recipe differs from its preset and the default policy."""
    finetune = presets.finetune(recipe.preset, num_experts=len(recipe.experts))
    return _assignments(
        field_changes.changed_fields(recipe, presets.assembly(recipe.preset))
        | field_changes.changed_fields(recipe.finetune, finetune, prefix="finetune.")
        | field_changes.changed_fields(recipe.gates, Policy(), prefix="gates.")
    )


def _assignments(fields: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{field}={as_text(value)}" for field, value in fields.items())
