"""What the forms about mixes send, as wishes; what is in them is checked where wishes are read."""

from typing import Any

from pydantic import BaseModel

from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.mixes.waivers import Waiver
from assembler.recipes import presets
from registry.errors import InvalidInput, Problem
from service import assignments


class _Form(BaseModel):
    """`tokens` of the finetune, blank for the preset's; `fields`, one FIELD=VALUE a line."""

    name: str = ""
    tokens: str = ""
    fields: str = ""
    deploy: bool = False

    def changes(self) -> dict[str, Any]:
        """As `assignments.read`, which raises InvalidInput."""
        changes = assignments.read(line for line in self.fields.splitlines() if line.strip())
        if tokens := self.tokens.replace(",", "").strip():
            changes["finetune"] = changes.get("finetune", {}) | {"tokens": tokens}
        return changes


class RequestForm(_Form):
    family: str = ""
    experts: list[str] = []
    preset: str = presets.DEFAULT

    def wish(self) -> NewMix:
        """Raises InvalidInput for lines that set nothing."""
        changes = self.changes()
        parts = {part: changes.pop(part, {}) for part in assignments.PARTS}
        return NewMix(
            name=self.name,
            family=self.family,
            experts=self.experts,
            preset=self.preset,
            assembly=changes,
            **parts,
        )


class RevisionForm(_Form):
    """An expert that joins a mix, one that leaves it, or one that takes the other's place."""

    joining: str = ""
    leaving: str = ""

    def wish(self, base: str) -> MixChange:
        """Raises InvalidInput for lines that set nothing, and where no expert was chosen."""
        if not self.joining and not self.leaving:
            problem = Problem("/expert", "choose who joins or leaves")
            raise InvalidInput("this changes nothing", problems=(problem,))
        changes = self.changes()
        parts = {part: changes.pop(part, {}) for part in assignments.PARTS}
        return MixChange(
            base=base,
            joining=self.joining or None,
            leaving=self.leaving or None,
            name=self.name or None,
            others=tuple(changes),
            **parts,
        )


class OverrideForm(BaseModel):
    """`scope`, each DOMAIN:METRIC of a limit that its gate has missed."""

    scope: list[str] = []
    reason: str = ""

    def waivers(self) -> list[Waiver]:
        """Raises InvalidInput."""
        return [Waiver.parse(text) for text in self.scope]
