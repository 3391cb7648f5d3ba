"""The comparison gate: is a candidate model as close to its reference as required?

The caller supplies all readings, so judging needs neither torch nor a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from engine.divergence import noise
from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading
from engine.gates import gate_limits
from engine.gates.gate_limits import DivergenceLimits, check_reachable
from engine.gates.report import (
    Data,
    Decode,
    Divergent,
    Metric,
    Report,
    earliest_divergence,
    failure,
    first_divergences,
    provenance,
    surest_divergences,
)
from registry.errors import InvalidInput

# Share of the compared tokens that the 75th percentile of the FDT must reach when the policy gives
# no threshold. The mix gate's default is the same share.
DEFAULT_FDT_SHARE = 0.75


class ModelPolicy(DivergenceLimits):
    """The amount of compared text, and the limits that a candidate must keep in every domain.

    Lengths are those of the paper (arXiv 2311.01544, section 4.1: prefixes and completions of 100
    tokens). A default threshold that the noise floor misses is lowered to the floor. A threshold
    set by the user that the noise floor misses is refused.
    """

    prompts_per_domain: int = Field(default=64, ge=1, description="Held-out prefixes per domain.")
    prefix_tokens: int = Field(default=100, ge=1, description="Tokens of each prefix.")
    completion_tokens: int = Field(
        default=100, ge=1, description="Tokens the reference adds greedily to each prefix."
    )
    min_equal_share: float | None = Field(
        default=0.99, ge=0, le=1, description="Share of tokens the candidate predicts equally."
    )
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token; by default three quarters of"
        " the completion.",
    )
    max_dppl_ratio: float | None = Field(
        default=1.01,
        ge=1,
        description="The candidate's perplexity on the reference's text divided by the"
        " reference's own.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        check_reachable(self, completion_tokens=self.completion_tokens)
        return self

    @property
    def limits(self) -> DivergenceLimits:
        """The limits that are applied, with the default of the 75th percentile."""
        if self.min_fdt_75 is not None:
            return self
        return self.model_copy(update={"min_fdt_75": DEFAULT_FDT_SHARE * self.completion_tokens})


@dataclass(frozen=True, kw_only=True)
class DomainReadings:
    """The readings of both models on the texts of one domain.

    Every sequence of readings is of `continuations`, in their order. `variations` are the
    reference's own readings by what was varied and must include `noise.IN_ONE_PASS`; the worst of
    them is the noise floor.
    """

    domain: str
    continuations: Sequence[Continuation]
    variations: noise.Variations
    candidate: Sequence[Reading]


class DomainDivergence(Data):
    """The report of one domain: divergence, noise floor and every limit."""

    domain: str = Field(description="Name of the domain.")
    candidate: Summary = Field(description="The candidate against the reference.")
    noise_floor: Summary = Field(
        description="The reference against itself, its worst reading of each text."
    )
    variations: dict[str, Summary] = Field(
        description="The reference against itself, by what was varied. The noise floor is the"
        " worst of these."
    )
    metrics: tuple[Metric, ...] = Field(description="Every measured number, with its limit.")
    examples: tuple[Divergent, ...] = Field(
        description="Tokens at which the candidate diverged, the reference's surest ones first."
    )


class Side(Data):
    """A model under comparison.

    `digest` covers its tensors and its end-of-text tokens. For a server it covers the address and
    the server's model card.
    """

    name: str = Field(description="Folder, registered name, or address and model.")
    digest: str = Field(description="SHA-256 of what was compared.")

    def __str__(self) -> str:
        return self.name


class DivergenceReport(Report):
    """The verdict of a comparison, with the numbers of every domain."""

    reference: Side = Field(description="The model that wrote the texts.")
    candidate: Side = Field(description="The model that was judged.")
    policy: ModelPolicy = Field(description="The limits that the candidate was judged by.")
    domains: tuple[DomainDivergence, ...] = Field(description="The numbers of every domain.")


def check_floor(
    policy: ModelPolicy,
    continuations: Sequence[Continuation],
    variations: noise.Variations,
    *,
    domain: str,
) -> None:
    """Check the policy before a candidate is read.

    Raises InvalidInput for thresholds set by the user that the reference itself does not reach.
    """
    _refuse_unreachable(policy, {domain: noise.floor(continuations, variations)})


def judge(
    policy: ModelPolicy,
    *,
    reference: Side,
    candidate: Side,
    domains: Sequence[DomainReadings],
    decode: Decode,
) -> DivergenceReport:
    """Compare every domain with the policy and return the report.

    `decode` turns token ids into the text of examples. Raises InvalidInput as `check_floor`.
    """
    assert domains
    results = [_judge_domain(policy, compared, decode) for compared in domains]
    _refuse_unreachable(policy, {report.domain: report.noise_floor for report, _ in results})
    failures = tuple(
        failure(report.domain, metric, stage="", first=first)
        for report, first in results
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
        domains=tuple(report for report, _ in results),
    )


def _refuse_unreachable(policy: ModelPolicy, floors: Mapping[str, Summary]) -> None:
    """Raise InvalidInput naming every threshold that the noise floor of a domain does not reach."""
    if problems := tuple(gate_limits.unreachable_limits(policy, floors)):
        raise InvalidInput("the policy asks for more than numerics allow", problems=problems)


def _judge_domain(
    policy: ModelPolicy, compared: DomainReadings, decode: Decode
) -> tuple[DomainDivergence, Divergent | None]:
    """Return the report of a domain, and the divergence closest to its prefix."""
    texts, expected = compared.continuations, compared.variations[noise.IN_ONE_PASS]
    candidate = summarize(texts, compared.candidate, expected=expected)
    floor = noise.floor(texts, compared.variations)
    divergences = first_divergences(texts, compared.candidate, decode)
    report = DomainDivergence(
        domain=compared.domain,
        candidate=candidate,
        noise_floor=floor,
        variations={
            name: summarize(texts, readings, expected=expected)
            for name, readings in compared.variations.items()
        },
        metrics=tuple(gate_limits.metrics(policy.limits, candidate, floor)),
        examples=surest_divergences(divergences),
    )
    return report, earliest_divergence(divergences)
