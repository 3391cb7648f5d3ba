"""Reads the forms about mixes. `assembler.mixes` checks the values."""

from typing import Any, Self

from pydantic import BaseModel

from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.mixes.waivers import Waiver
from assembler.recipes import presets
from engine.vllm_server.engine_options import EngineOptions
from registry.errors import InvalidInput, Problem
from service import assignments, quantities
from service.schemas.common import Line, Lines, Text


class _Form(BaseModel):
    """Fields of all forms.

    `tokens` are the tokens of the finetune; blank means as the preset says. `fields` has one
    FIELD=VALUE a line. `preview` counts only with `deploy`.
    """

    name: Line = ""
    tokens: Line = ""
    fields: Text = ""
    deploy: bool = False
    preview: bool = False

    def changes(self) -> dict[str, Any]:
        """Return the fields as a nested mapping. Raises InvalidInput for a wrong line."""
        changes = assignments.read(line for line in self.fields.splitlines() if line.strip())
        if tokens := self.tokens.replace(",", "").strip():
            changes["finetune"] = changes.get("finetune", {}) | {
                "tokens": assignments.value_of(tokens)
            }
        return changes


class RequestForm(_Form):
    """The form for a new mix."""

    family: Line = ""
    experts: Lines = []
    preset: Line = presets.DEFAULT

    def spec(self) -> NewMix:
        """Return what `mixes.request` takes. Raises InvalidInput for a wrong line."""
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
    """The form to change a mix: an expert to add, one to remove, or both to replace one."""

    joining: Line = ""
    leaving: Line = ""

    def spec(self, base: str) -> MixChange:
        """Return what `mixes.request` takes. Raises InvalidInput for a wrong line or no expert."""
        if not self.joining and not self.leaving:
            problem = Problem("/expert", "choose an expert to add or to remove")
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


class OptionsForm(BaseModel):
    """The form for the engine of a model; blank means the default.

    `chosen` tells a form that was sent from one that is shown, and from the plain button.
    """

    chosen: bool = False
    context: Line = ""
    kv_memory: Line = ""
    tensor_parallel: Line = ""
    dtype: Line = ""
    chat_template: Text = ""
    tool_parser: Line = ""
    engine_args: Text = ""

    @classmethod
    def of(cls, options: EngineOptions) -> Self:
        """Return the form that stands for options."""
        stored = options.stored()
        args = stored.pop("engine_args", {})
        lines = [f"{name}={assignments.as_text(value)}" for name, value in args.items()]
        memory = stored.pop("kv_memory_bytes", "")
        texts = {name: str(value) for name, value in stored.items()}
        return cls(kv_memory=str(memory), engine_args="\n".join(lines), **texts)

    def fields(self) -> dict[str, Any]:
        """Return the options as fields of a request. Raises InvalidInput for a wrong line."""
        fields: dict[str, Any] = {}
        for name in ("context", "tensor_parallel"):
            if text := getattr(self, name).replace(",", "").strip():
                fields[name] = assignments.value_of(text)
        for name in ("dtype", "tool_parser"):
            if text := getattr(self, name).strip():
                fields[name] = text
        if memory := self.kv_memory.strip():
            is_plain = memory.isdecimal()
            fields["kv_memory_bytes"] = (
                assignments.value_of(memory)
                if is_plain
                else quantities.read_size(memory, at="KV memory")
            )
        if self.chat_template.strip():
            # Browsers send the line ends of text fields as CR LF.
            fields["chat_template"] = self.chat_template.replace("\r\n", "\n")
        lines = [line for line in self.engine_args.splitlines() if line.strip()]
        if args := assignments.read_plain(lines):
            fields["engine_args"] = args
        return fields


class OverrideForm(BaseModel):
    """The form to publish a refused mix; `scope` has DOMAIN:METRIC of each missed limit."""

    scope: Lines = []
    reason: Text = ""

    def waivers(self) -> list[Waiver]:
        """Return the limits to waive. Raises InvalidInput."""
        return [Waiver.parse(text) for text in self.scope]
