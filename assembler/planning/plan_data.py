"""What a plan says, as data: a client reads it without database, tensors or tokenizer."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.errors import Problem

Kind = Literal[
    "collinear-domains",
    "condition",
    "nothing-to-mix",
    "attention-moved",
    "few-documents",
    "little-text",
    "memory",
    "disk",
    "license",
]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class Caution(_Data):
    """Something to know before; `value` is the number that it rests on."""

    kind: Kind = Field(description="What it is about.")
    detail: str = Field(description="The warning as a sentence.")
    value: float | None = Field(
        default=None, description="The number that it rests on; null without one."
    )


class Estimate(_Data):
    """Between `low` and `high` seconds, and what that rests on."""

    low: float = Field(description="Seconds.")
    high: float = Field(description="Seconds.")
    basis: str = Field(description="What the estimate rests on.")


class StepPlan(_Data):
    """What one step needs. Bytes of tensors; memory and time are estimates."""

    step: str = Field(description="Name of the step.")
    bytes_read: int = Field(description="Bytes of tensors that the step reads.")
    bytes_kept: int = Field(description="Written and kept: what is new.")
    bytes_scratch: int = Field(description="Written, and gone when the step ends.")
    memory: int = Field(description="Bytes that are this step's own, about, on all its processes.")
    memory_per_process: int | None = Field(
        default=None, description="Of a step on many processes, of the one that holds most."
    )
    seconds: Estimate = Field(description="How long the step takes.")


class Size(_Data):
    """The mix, and what making and serving it takes."""

    num_parameters: int = Field(description="Parameters of the mix.")
    num_active_parameters: int = Field(description="Those that one token meets.")
    num_bytes: int = Field(description="Of all its tensors, most of which others have too.")
    finetune_tokens: int = Field(description="Tokens that the finetune reads.")
    disk_needed: int = Field(description="All that is kept, and the largest scratch.")
    disk_free: int = Field(description="Bytes free on the disk now.")
    steps: tuple[StepPlan, ...] = Field(description="The steps that make the mix, in their order.")


class Plan(_Data):
    """A request as it would be carried out; with problems it would be refused."""

    name: str = Field(description="Name of the mix.")
    family: str | None = Field(description="None when it was not found.")
    experts: tuple[str, ...] = Field(description="Those that were found, pinned.")
    problems: tuple[Problem, ...] = Field(description="All of them, pointing into the request.")
    warnings: tuple[Caution, ...] = Field(
        default=(), description="What may go wrong, though the mix can be made."
    )
    license: str | None = Field(
        default=None, description="Of the result, as SPDX has it; None when there are problems."
    )
    existing: str | None = Field(
        default=None, description="The version that was made from just this recipe already."
    )
    size: Size | None = Field(default=None, description="None when there are problems.")
