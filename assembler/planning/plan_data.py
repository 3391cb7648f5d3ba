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

    kind: Kind
    detail: str
    value: float | None = Field(default=None)


class Estimate(_Data):
    """Between `low` and `high` seconds, and what that rests on."""

    low: float = Field(description="Seconds.")
    high: float = Field(description="Seconds.")
    basis: str


class StepPlan(_Data):
    """What one step needs. Bytes of tensors; memory and time are estimates."""

    step: str
    bytes_read: int
    bytes_kept: int = Field(description="Written and kept: what is new.")
    bytes_scratch: int = Field(description="Written, and gone when the step ends.")
    memory: int = Field(description="Bytes that are this step's own, about, on all its processes.")
    memory_per_process: int | None = Field(
        default=None, description="Of a step on many processes, of the one that holds most."
    )
    seconds: Estimate


class Size(_Data):
    """The mix, and what making and serving it takes."""

    num_parameters: int
    num_active_parameters: int = Field(description="Those that one token meets.")
    num_bytes: int = Field(description="Of all its tensors, most of which others have too.")
    finetune_tokens: int
    disk_needed: int = Field(description="All that is kept, and the largest scratch.")
    disk_free: int
    steps: tuple[StepPlan, ...]


class Plan(_Data):
    """A request as it would be carried out; with problems it would be refused."""

    name: str
    family: str | None = Field(description="None when it was not found.")
    experts: tuple[str, ...] = Field(description="Those that were found, pinned.")
    problems: tuple[Problem, ...] = Field(description="All of them, pointing into the request.")
    warnings: tuple[Caution, ...] = ()
    license: str | None = Field(
        default=None, description="Of the result, as SPDX has it; None when there are problems."
    )
    existing: str | None = Field(
        default=None, description="The version that was made from just this recipe already."
    )
    size: Size | None = Field(default=None, description="None when there are problems.")
