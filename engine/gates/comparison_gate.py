"""The gate between any two models: is a candidate kept as near to its reference as is asked?

All readings come in from outside, so judging needs neither torch nor a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from engine.divergence import noise
from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading
from engine.gates import gate_limits
from engine.gates.gate_limits import Likeness, check_reachable
from engine.gates.report import (
    Data,
    Decode,
    Divergent,
    Metric,
    Report,
    failure,
    first_of,
    partings,
    provenance,
    worst_of,
)
from registry.errors import InvalidInput

# Of the compared tokens, where no threshold of the 75th percentile is given; as the gate of a mix.
DEFAULT_FDT_SHARE = 0.75


class ModelPolicy(Likeness):
    """How much is compared, and what a candidate must keep in every domain.

    Lengths are those of the paper (section 4.1: prefixes and completions of 100 tokens). A default
    gives way to the noise floor, a threshold of one's own that asks for more is refused.
    """

    prompts_per_domain: int = Field(default=64, ge=1, description="Held-out prefixes per domain.")
    prefix_tokens: int = Field(default=100, ge=1, description="Tokens of each prefix.")
    completion_tokens: int = Field(
        default=100, ge=1, description="Tokens the reference adds greedily to each prefix."
    )
    min_equal_share: float | None = Field(
        default=0.99, ge=0, le=1, description="Share of tokens the candidate predicts alike."
    )
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token; three quarters of the"
        " completion if not given.",
    )
    max_dppl_ratio: float | None = Field(
        default=1.01,
        ge=1,
        description="Candidate's perplexity on the reference's text, over the reference's own.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        check_reachable(self, completion_tokens=self.completion_tokens)
        return self

    @property
    def limits(self) -> Likeness:
        """With the threshold of the 75th percentile that is held against."""
        if self.min_fdt_75 is not None:
            return self
        return self.model_copy(update={"min_fdt_75": DEFAULT_FDT_SHARE * self.completion_tokens})


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Raw numbers of one domain; every reading is of `continuations`, in their order.

    `varied` are the reference's own readings, by what was varied, one of them `noise.IN_ONE_PASS`;
    the worst of them is the floor.
    """

    domain: str
    continuations: Sequence[Continuation]
    varied: noise.Variations
    candidate: Sequence[Reading]


class DomainDivergence(Data):
    domain: str
    candidate: Summary
    noise_floor: Summary
    variations: dict[str, Summary] = Field(
        description="The reference against itself, by what was varied; the floor is their worst."
    )
    metrics: tuple[Metric, ...] = Field(description="All that was measured, with its limit.")
    examples: tuple[Divergent, ...] = Field(
        description="Where the candidate parted; where the reference was surest, first."
    )


class Side(Data):
    """A model under comparison. `digest` is over its tensors and where its texts end; of a server
    over its address and what that tells of the model."""

    name: str
    digest: str

    def __str__(self) -> str:
        return self.name


class DivergenceReport(Report):
    reference: Side
    candidate: Side
    policy: ModelPolicy
    domains: tuple[DomainDivergence, ...]


def check_floor(
    policy: ModelPolicy,
    continuations: Sequence[Continuation],
    varied: noise.Variations,
    *,
    domain: str,
) -> None:
    """Before a candidate is read. Raises InvalidInput for thresholds of one's own that the
    reference itself does not keep."""
    _refuse_beyond(policy, {domain: noise.floor(continuations, varied)})


def judge(
    policy: ModelPolicy,
    *,
    reference: Side,
    candidate: Side,
    domains: Sequence[Compared],
    decode: Decode,
) -> DivergenceReport:
    """Hold every domain against the policy. `decode` turns token ids into text for the examples.

    Raises InvalidInput as `check_floor`.
    """
    assert domains
    judged = [_judged(policy, compared, decode) for compared in domains]
    _refuse_beyond(policy, {report.domain: report.noise_floor for report, _ in judged})
    failures = tuple(
        failure(report.domain, metric, stage="", first=first)
        for report, first in judged
        for metric in report.metrics
        if not metric.kept
    )
    return DivergenceReport(
        **provenance(),
        reference=reference,
        candidate=candidate,
        policy=policy,
        passed=not failures,
        failures=failures,
        domains=tuple(report for report, _ in judged),
    )


def _refuse_beyond(policy: ModelPolicy, floors: Mapping[str, Summary]) -> None:
    if problems := tuple(gate_limits.beyond(policy, floors)):
        raise InvalidInput("the policy asks for more than numerics allow", problems=problems)


def _judged(
    policy: ModelPolicy, compared: Compared, decode: Decode
) -> tuple[DomainDivergence, Divergent | None]:
    """A domain, and the prompt that diverged first."""
    texts, expected = compared.continuations, compared.varied[noise.IN_ONE_PASS]
    candidate = summarize(texts, compared.candidate, expected=expected)
    floor = noise.floor(texts, compared.varied)
    parted = partings(texts, compared.candidate, decode)
    report = DomainDivergence(
        domain=compared.domain,
        candidate=candidate,
        noise_floor=floor,
        variations={
            name: summarize(texts, own, expected=expected) for name, own in compared.varied.items()
        },
        metrics=tuple(gate_limits.metrics(policy.limits, candidate, floor)),
        examples=worst_of(parted),
    )
    return report, first_of(parted)
