"""What may be asked of mixes over HTTP: a new one, a plan of one, a changed one."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assembler.recipe import Assembly, Finetune, Preset
from engine.gates import Policy


class MixRequest(Assembly):
    """Fields of the recipe that are not given are the preset's; the defaults shown are those of
    `nexus`."""

    name: str
    family: str
    experts: list[str] = Field(description="`name`, or `name@number` for a certain version.")
    deploy: bool = Field(default=False, description="Serve it under its name once it is made.")
    finetune: Finetune = Field(default=Finetune(), description="Changes to the preset's.")
    gates: Policy = Policy()

    @property
    def assembly(self) -> dict[str, Any]:
        """What it changes of the preset."""
        asked = self.model_fields_set & Assembly.model_fields.keys() - {"preset"}
        return {field: getattr(self, field) for field in asked}


class PlanRequest(BaseModel):
    """As a request for a mix, but nothing in it is refused before all of it was looked at: what is
    wrong comes back as the plan's problems. Further fields change those of the preset."""

    model_config = ConfigDict(extra="allow")

    name: str
    family: str
    experts: list[str] = Field(description="`name`, or `name@number` for a certain version.")
    deploy: bool = Field(default=False, description="Changes nothing here.")
    preset: Preset = "nexus"
    finetune: dict[str, Any] = {}
    gates: dict[str, Any] = {}
    base: str | None = Field(
        default=None,
        description="A finished mix that is changed: `experts` are all that it has then.",
    )


class RevisionRequest(BaseModel):
    """A finished mix with other experts; it is assembled as it was."""

    model_config = ConfigDict(extra="forbid")

    expert: str = Field(description="`name`, or `name@number`.")
    name: str | None = Field(
        default=None, description="Of the mix that comes of it; else the same."
    )
    deploy: bool = Field(default=False, description="Serve it under its name once it is made.")
    finetune: Finetune = Field(default=Finetune(), description="Changes to the preset's.")
    gates: dict[str, Any] = Field(default={}, description="Changes to those it had.")

    @property
    def changes(self) -> dict[str, Any]:
        """As `assembler.mixes` takes them."""
        return {
            "name": self.name,
            "deploy": self.deploy,
            "finetune": self.finetune.model_dump(exclude_unset=True),
            "gates": self.gates,
        }


class ReplacementRequest(RevisionRequest):
    by: str = Field(description="The expert that takes its place: `name`, or `name@number`.")
