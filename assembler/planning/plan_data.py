"""What a plan says, as data: a client reads it without database, tensors or tokenizer."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.errors import Problem

Kind = Literal[
    "collinear-domains",
    "condition",
    "nothing-to-mix",
    "attention-moved",
    "chat-template",
    "few-documents",
    "no-documents",
    "little-text",
    "memory",
    "disk",
    "license",
]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlanWarning(_Data):
    """Something to know before; `value` is the number that it rests on."""

    kind: Kind = Field(description="What it is about.")
    detail: str = Field(description="The warning as a sentence.")
    value: float | None = Field(
        default=None, description="The number that it rests on; null without one."
    )


class Estimate(_Data):
    """Between `low` and `high` seconds, and what that rests on."""

    low: float = Field(description="Shortest likely time, in seconds.")
    high: float = Field(description="Longest likely time, in seconds.")
    basis: str = Field(description="What the estimate rests on.")


class StepPlan(_Data):
    """What one step needs. Bytes of tensors; memory and time are estimates."""

    step: str = Field(description="Name of the step.")
    bytes_read: int = Field(description="Bytes of tensors that the step reads.")
    bytes_kept: int = Field(description="Bytes of new tensors that are kept.")
    bytes_scratch: int = Field(description="Bytes that are written and deleted when the step ends.")
    memory: int = Field(
        description="Bytes of memory that the step needs, about, in all its processes."
    )
    memory_per_process: int | None = Field(
        default=None,
        description="Bytes of the process that needs most; null for a step in one process.",
    )
    seconds: Estimate = Field(description="How long the step takes.")


class Size(_Data):
    """The mix, and what making and serving it takes."""

    num_parameters: int = Field(description="Parameters of the mix.")
    num_active_parameters: int = Field(description="Parameters that one token uses.")
    num_bytes: int = Field(
        description="Bytes of all tensors; most of them are shared with other models."
    )
    finetune_tokens: int = Field(description="Tokens that the finetune reads.")
    disk_needed: int = Field(description="Bytes that are kept, and the largest scratch of a step.")
    disk_free: int = Field(description="Bytes free on the disk now.")
    steps: tuple[StepPlan, ...] = Field(description="The steps that make the mix, in their order.")


class Plan(_Data):
    """A request as it would be carried out; with problems it would be refused."""

    name: str = Field(description="Name of the mix.")
    family: str | None = Field(description="Name of the family; null when it was not found.")
    experts: tuple[str, ...] = Field(description="The experts that were found, `NAME@NUMBER` each.")
    problems: tuple[Problem, ...] = Field(
        description="Every problem of the request, with a pointer to its place."
    )
    warnings: tuple[PlanWarning, ...] = Field(
        default=(), description="What may go wrong, though the mix can be made."
    )
    license: str | None = Field(
        default=None,
        description="License of the mix, as an SPDX expression; null when there are problems.",
    )
    existing: str | None = Field(
        default=None,
        description="A version that was already made from the same recipe; null without one.",
    )
    size: Size | None = Field(
        default=None, description="What the mix needs; null when there are problems."
    )
