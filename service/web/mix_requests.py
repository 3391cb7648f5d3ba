"""What may be asked of mixes over HTTP: a new one, or a changed one; and a plan of either.

Recipe fields are documented here and checked in `assembler.mixes.new_mix`, with all else that a
request
names: so every mistake comes in one list, and a plan's problems are what a request is refused with.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.recipes import presets
from assembler.recipes.recipe import Assembly
from service.web.changes import CompressionFields, FinetuneChanges, PolicyChanges


def _document_recipe(schema: dict[str, Any]) -> None:
    """The fields that a preset fills in, and their types, on the API's page."""
    fields = Assembly.model_json_schema()["properties"]
    schema["properties"] |= fields
    schema["additionalProperties"] = False


def _document_as_closed(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False


class MixRequest(BaseModel):
    """Experts, and how they become one network. Fields of the recipe that are not given are the
    preset's, see `/presets`; the defaults shown are those of `nexus`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_document_recipe)

    name: str = Field(description="Of the mix, and the model name that applications ask for.")
    family: str = Field(description="The family that all experts are of.")
    experts: list[str] = Field(
        description="At least two: `name`, or `name@number` for a certain version."
    )
    deploy: bool = Field(default=False, description="Serve it under its name once it is made.")
    preset: str = presets.DEFAULT
    finetune: FinetuneChanges = Field(default={}, description="Changes to the preset's.")
    compress: CompressionFields = Field(
        default={}, description="How small it is to become, or how true to stay; else it is not."
    )
    gates: PolicyChanges = Field(
        default={},
        description="Changes to the family's policy; the defaults shown are of none.",
    )

    @property
    def wish(self) -> NewMix:
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


class _Revision(BaseModel):
    """A finished mix with other experts; it is assembled as it was. Problems with the mix itself,
    or with experts that stay, point to `/base`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_document_as_closed)

    name: str | None = Field(
        default=None, description="Of the mix that comes of it; else the same."
    )
    deploy: bool = Field(default=False, description="Serve it under its name once it is made.")
    finetune: FinetuneChanges = Field(default={}, description="Changes to the preset's.")
    compress: CompressionFields = Field(
        default={}, description="How small it is to become, or how true to stay; else it is not."
    )
    gates: PolicyChanges = Field(default={}, description="Changes to those it had.")

    def _wish(self, base: str, *, joining: str | None, leaving: str | None) -> MixChange:
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


class ExtensionRequest(_Revision):
    __doc__ = _Revision.__doc__

    expert: str = Field(description="Who joins: `name`, or `name@number` for a certain version.")

    def wish(self, base: str) -> MixChange:
        return self._wish(base, joining=self.expert, leaving=None)


class RemovalRequest(_Revision):
    __doc__ = _Revision.__doc__

    expert: str = Field(description="One of its experts: `name`, or `name@number`.")

    def wish(self, base: str) -> MixChange:
        return self._wish(base, joining=None, leaving=self.expert)


class ReplacementRequest(_Revision):
    __doc__ = _Revision.__doc__

    expert: str = Field(description="One of its experts: `name`, or `name@number`.")
    by: str = Field(
        description="Who takes its place: `name`, or `name@number`; another version of it may."
    )

    def wish(self, base: str) -> MixChange:
        return self._wish(base, joining=self.by, leaving=self.expert)
