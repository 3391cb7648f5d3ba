"""Presets, mixes, their plans, events and overrides.

Bodies that request a mix are in `service.web.mix_requests`.
"""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from assembler.mixes.waivers import Waiver
from assembler.planning.plan_data import Plan
from assembler.recipes import presets
from assembler.recipes.recipe import Preset, Recipe
from assembler.tables import JobEvent, MixState, MixVersion
from service.schemas.common import Request, Text


class PresetBody(BaseModel):
    """A recipe with a name, and all its fields."""

    object: Literal["preset"] = Field(default="preset", description="The kind of this object.")
    name: Preset = Field(description="Name of the preset.")
    description: str = Field(description="What it is for, in one line.")
    assembly: dict[str, Any] = Field(
        description="How experts become one network: the recipe's fields."
    )
    finetune: dict[str, Any] = Field(description="All fields of the finetune except its tokens.")
    tokens_per_expert: int = Field(
        description="Finetune tokens for each expert of the mix, if a request sets no tokens."
    )
    changed: dict[str, Any] = Field(
        description="Fields that differ from the default preset: `FIELD` or `finetune.FIELD`."
    )

    @classmethod
    def of(cls, name: Preset) -> Self:
        return cls(
            name=name,
            description=presets.DESCRIPTIONS[name],
            assembly={f: value for f, value in presets.assembly(name) if f != "preset"},
            finetune=presets.finetune(name, num_experts=1).model_dump(
                mode="json", exclude={"tokens"}
            ),
            tokens_per_expert=presets.tokens_per_expert(name),
            changed=presets.changed(name),
        )


class PlanBody(Plan):
    """What a request for a mix would do."""

    object: Literal["mix.plan"] = Field(default="mix.plan", description="The kind of this object.")

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(**dict(plan))


class MixBody(BaseModel):
    """One version of a mix."""

    object: Literal["mix.version"] = Field(
        default="mix.version", description="The kind of this object."
    )
    id: int = Field(description="Id of the version among those of all mixes; `after` takes it.")
    name: str = Field(description="Name of the mix.")
    version: int = Field(description="Number of the version, from 1.")
    ref: str = Field(description="`NAME@NUMBER`, as requests name it.")
    family: str = Field(description="Name of its family.")
    preset: Preset = Field(description="The preset that it was requested with.")
    base: str | None = Field(description="The version that it was made from; null for a new mix.")
    state: MixState = Field(description="The step that the mix is in, or how it ended.")
    deploy: bool = Field(description="Whether it is served once its gate has passed.")
    preview: bool = Field(
        default=False, description="Whether it is served before that, as a preview."
    )
    recipe: dict[str, Any] = Field(
        description="Every field of its recipe, with all versions pinned."
    )
    progress: dict[str, Any] | None = Field(
        description="Progress of the running step: step, num_steps, num_tokens, loss, eta_seconds."
    )
    artifact: int | None = Field(description="Id of its artifact; null before its gate has passed.")
    error: str | None = Field(description="Why it failed; null otherwise.")
    created_at: datetime = Field(description="When it was requested.")
    finished_at: datetime | None = Field(description="When it ended; null before.")
    kept_until: datetime | None = Field(
        description="Until when a mix that its gate refused can be exported and overridden."
    )

    @classmethod
    def of(cls, row: MixVersion) -> Self:
        recipe = Recipe.model_validate(row.recipe)
        return cls(
            id=row.id,
            name=row.mix.name,
            version=row.number,
            ref=f"{row.mix.name}@{row.number}",
            family=recipe.family,
            preset=recipe.preset,
            base=recipe.base,
            state=row.state,
            deploy=row.deploy,
            preview=row.preview,
            recipe=row.recipe,
            progress=row.progress,
            artifact=row.artifact_id,
            error=row.error,
            created_at=row.created_at,
            finished_at=row.finished_at,
            kept_until=row.kept_until,
        )


class OverrideRequest(Request):
    """Publish a mix that its gate refused."""

    scope: list[Waiver] = Field(
        min_length=1,
        max_length=1000,
        description="Every limit that the mix missed, as the gate report names it.",
    )
    reason: Text = Field(
        min_length=1, max_length=2000, description="Why the mix may be used nevertheless."
    )


class EventBody(BaseModel):
    """Something that happened while a mix was made."""

    id: int = Field(description="Number of the event; `Last-Event-ID` takes it.")
    type: str = Field(description="Kind of the event.")
    message: str = Field(description="The event as a sentence.")
    data: dict[str, Any] = Field(description="The event's numbers, by name.")
    created_at: datetime = Field(description="When it happened.")

    @classmethod
    def of(cls, row: JobEvent) -> Self:
        return cls.model_validate(row, from_attributes=True)
