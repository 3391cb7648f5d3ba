"""Request bodies for a new mix, and for a changed version of a finished mix.

The recipe's fields are documented here, but `assembler.mixes.new_mix` checks them, together with
everything else in the request. So the answer lists every problem at once, and a plan has the same
problems as a request.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.recipes import presets
from assembler.recipes.recipe import Assembly
from service.schemas.common import Line, Lines
from service.web.changes import CompressionFields, FinetuneChanges, PolicyChanges

DEPLOY = "Serve the mix under its name once its gate has passed."
PREVIEW = (
    "With `deploy`: serve the mix as a preview from its assembly on, until its gate has judged it."
)
FINETUNE = "Changes to the finetune of the preset."
COMPRESS = "How small the mix must become, or how close it must stay. Empty: no compression."


def _document_recipe(schema: dict[str, Any]) -> None:
    """Add the recipe's fields, which a preset fills in, to the OpenAPI document."""
    schema["properties"] |= Assembly.model_json_schema()["properties"]
    schema["additionalProperties"] = False


def _document_as_closed(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False


class MixRequest(BaseModel):
    """Experts, and how they become one network. A recipe field that is missing is taken from the
    preset, see `/presets`; the defaults shown here are those of `nexus`."""

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_document_recipe)

    name: Line = Field(description="Name of the mix, and of the model for applications.")
    family: Line = Field(description="The family of all experts.")
    experts: Lines = Field(
        description="At least two: `name` for the newest ready version, or `name@number`."
    )
    deploy: bool = Field(default=False, description=DEPLOY)
    preview: bool = Field(default=False, description=PREVIEW)
    preset: Line = Field(
        default=presets.DEFAULT, description="Name of the preset that fills in the recipe."
    )
    finetune: FinetuneChanges = Field(default={}, description=FINETUNE)
    compress: CompressionFields = Field(default={}, description=COMPRESS)
    gates: PolicyChanges = Field(
        default={},
        description="Changes to the family's policy. The defaults shown are those of the default"
        " policy.",
    )

    @property
    def spec(self) -> NewMix:
        """Return the request for `mixes.request` and `plan.plan`."""
        return NewMix(
            name=self.name,
            family=self.family,
            experts=self.experts,
            preset=self.preset,
            assembly=self.model_extra or {},
            finetune=self.finetune,
            compress=self.compress,
            gates=self.gates,
        )


class _RevisionRequest(BaseModel):
    """What all changes of a finished mix have in common."""

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_document_as_closed)

    name: Line | None = Field(
        default=None, description="Name of the new mix. Default: a new version of the same mix."
    )
    deploy: bool = Field(default=False, description=DEPLOY)
    preview: bool = Field(default=False, description=PREVIEW)
    finetune: FinetuneChanges = Field(default={}, description=FINETUNE)
    compress: CompressionFields = Field(default={}, description=COMPRESS)
    gates: PolicyChanges = Field(default={}, description="Changes to the gates of the base mix.")

    def _spec(self, base: str, *, joining: str | None, leaving: str | None) -> MixChange:
        return MixChange(
            base=base,
            joining=joining,
            leaving=leaving,
            name=self.name,
            finetune=self.finetune,
            compress=self.compress,
            gates=self.gates,
            others=tuple(self.model_extra or ()),
        )


class ExtensionRequest(_RevisionRequest):
    """A finished mix with one more expert, assembled as before. Problems of the mix itself, or of
    its experts, point to `/base`."""

    expert: Line = Field(
        description="The expert to add: `name` for its newest ready version, or `name@number`."
    )

    def spec(self, base: str) -> MixChange:
        """Return the request for `mixes.request` and `plan.plan`; `base` is `NAME@NUMBER`."""
        return self._spec(base, joining=self.expert, leaving=None)


class RemovalRequest(_RevisionRequest):
    """A finished mix without one of its experts, assembled as before. Problems of the mix itself,
    or of experts that stay, point to `/base`."""

    expert: Line = Field(description="The expert to remove: `name`, or `name@number`.")

    def spec(self, base: str) -> MixChange:
        """Return the request for `mixes.request` and `plan.plan`; `base` is `NAME@NUMBER`."""
        return self._spec(base, joining=None, leaving=self.expert)


class ReplacementRequest(_RevisionRequest):
    """A finished mix with one expert replaced, assembled as before. Problems of the mix itself, or
    of experts that stay, point to `/base`."""

    expert: Line = Field(description="The expert to replace: `name`, or `name@number`.")
    by: Line = Field(
        description="The expert to put in its place: `name`, or `name@number`. It may be another"
        " version of the same expert."
    )

    def spec(self, base: str) -> MixChange:
        """Return the request for `mixes.request` and `plan.plan`; `base` is `NAME@NUMBER`."""
        return self._spec(base, joining=self.by, leaving=self.expert)
