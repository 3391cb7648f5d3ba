"""The gate: a candidate becomes an artifact only if it passes the policy of its recipe.

All numbers come in from outside (perplexities and greedy texts from the reference network, served
readings from a running server), so judging needs neither torch nor a model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, FiniteFloat

from engine.divergence import noise
from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading
from engine.gates import gate_limits
from engine.gates.policy import STAGES, ParentLimits, Policy, Stage
from engine.gates.report import (
    Data,
    Decode,
    Divergent,
    Failure,
    Metric,
    Report,
    failure,
    first_of,
    partings,
    provenance,
    worst_of,
)
from registry.errors import InvalidInput

# Of one sequence of held-out text: long enough for context to matter, short enough for small
# collections.
WINDOW_TOKENS = 128


class Perplexities(Data):
    """Held-out perplexity of one domain under everything that took part."""

    seed: FiniteFloat
    experts: dict[str, FiniteFloat]
    merge: FiniteFloat
    assembled: FiniteFloat
    finetuned: FiniteFloat | None = Field(default=None, description="None without a finetune.")
    compressed: FiniteFloat | None = Field(default=None, description="None without a compression.")
    base: FiniteFloat | None = Field(
        default=None, description="Of the mix version that this one was made from."
    )

    @property
    def trained(self) -> float:
        """Of the mix before any compression."""
        return self.assembled if self.finetuned is None else self.finetuned

    @property
    def candidate(self) -> float:
        return self.trained if self.compressed is None else self.compressed


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Raw numbers of one domain; every reading is of `continuations`, in their order.

    `documents` is the digest of its documents. `varied` are the reference's own readings, by what
    was varied (`engine.divergence.noise`); the worst of them is the noise floor. `readings` are
    those of others, by the stage in which they are compared: the engine's (`served`), the mix's
    before its finetune (`finetuned`) or before its compression (`compressed`), and the version's
    before (`base`), which has none in a domain that it does not have.
    """

    domain: str
    documents: str
    perplexity: Perplexities
    continuations: Sequence[Continuation]
    varied: noise.Variations
    readings: Mapping[Stage, Sequence[Reading]]


class StageMetric(Metric):
    """A number of one stage, see `engine.gates.policy`."""

    stage: Stage


class DomainReport(Data):
    """`served`, `finetuned`, `compressed` and `base` are what the engine, the mix before its
    finetune, that before its compression and the version before make of the candidate's greedy
    texts; None where there is no such stage."""

    domain: str
    documents: str = Field(
        description="SHA-256 of the documents; of the held-out ones the gate reads."
    )
    perplexity: Perplexities
    noise_floor: Summary
    served: Summary
    finetuned: Summary | None
    compressed: Summary | None
    base: Summary | None
    metrics: tuple[StageMetric, ...] = Field(
        description="All that was measured, with its limit, stage by stage."
    )
    examples: dict[Stage, tuple[Divergent, ...]] = Field(
        description="Where texts parted, by stage; where the candidate was surest, first."
    )


class Sides(Data):
    """Digests of the checkpoints that a stage compares."""

    candidate: str
    against: dict[str, str] = Field(description="By the part that each plays.")


class GateReport(Report):
    policy: Policy
    manifest_digest: str = Field(description="Of the candidate.")
    stages: dict[Stage, Sides]
    domains: tuple[DomainReport, ...]


def judge(
    policy: Policy,
    *,
    manifest_digest: str,
    stages: Mapping[Stage, Sides],
    domains: Sequence[Measurements],
    decode: Decode,
) -> GateReport:
    """Hold every domain against the policy. `decode` turns token ids into text for the examples.

    Passing needs at least one domain: what was not measured has not passed. Raises InvalidInput for
    thresholds of one's own beyond the noise floor.
    """
    assert domains
    judged = [_Judged.of(policy, measured, decode) for measured in domains]
    floors = {own.report.domain: own.report.noise_floor for own in judged}
    problems = tuple(
        problem
        for stage, limits in policy.likenesses.items()
        if stage in stages
        for problem in gate_limits.beyond(limits, floors, at=(stage,))
    )
    if problems:
        raise InvalidInput("the policy asks for more than numerics allow", problems=problems)
    failures = tuple(own for each in judged for own in each.failures())
    return GateReport(
        **provenance(),
        policy=policy,
        manifest_digest=manifest_digest,
        stages=dict(stages),
        passed=not failures,
        failures=failures,
        domains=tuple(own.report for own in judged),
    )


@dataclass(frozen=True)
class _Judged:
    """A domain, and by stage the prompt that diverged first."""

    report: DomainReport
    first: Mapping[Stage, Divergent | None]

    @classmethod
    def of(cls, policy: Policy, measured: Measurements, decode: Decode) -> "_Judged":
        texts, expected = measured.continuations, measured.varied[noise.IN_ONE_PASS]
        floor = noise.floor(texts, measured.varied)
        summaries = {
            stage: summarize(texts, own, expected=expected)
            for stage, own in measured.readings.items()
        }
        parted = {stage: partings(texts, own, decode) for stage, own in measured.readings.items()}
        report = DomainReport(
            domain=measured.domain,
            documents=measured.documents,
            perplexity=measured.perplexity,
            noise_floor=floor,
            served=summaries["served"],
            finetuned=summaries.get("finetuned"),
            compressed=summaries.get("compressed"),
            base=summaries.get("base"),
            metrics=tuple(
                sorted(
                    _metrics(policy, measured, summaries, floor),
                    key=lambda own: STAGES.index(own.stage),
                )
            ),
            examples={stage: worst_of(own) for stage, own in parted.items()},
        )
        return cls(report, {stage: first_of(own) for stage, own in parted.items()})

    def failures(self) -> Iterator[Failure]:
        for metric in self.report.metrics:
            if not metric.kept:
                first = self.first.get(metric.stage)
                yield failure(self.report.domain, metric, stage=metric.stage, first=first)


def _metrics(
    policy: Policy, measured: Measurements, summaries: Mapping[Stage, Summary], floor: Summary
) -> Iterator[StageMetric]:
    perplexity, expert = measured.perplexity, measured.perplexity.experts[measured.domain]
    ratios: list[tuple[Stage, str, float, float, float | None]] = []
    parents: list[tuple[Stage, float, ParentLimits]] = [
        ("assembled", perplexity.assembled, policy.assembled),
        ("candidate", perplexity.candidate, policy.candidate),
    ]
    for stage, own, limits in parents:
        ratios += [
            (stage, "_to_seed", own, perplexity.seed, limits.max_perplexity_ratio_to_seed),
            (stage, "_to_expert", own, expert, limits.max_perplexity_ratio_to_expert),
        ]
    candidate = perplexity.candidate
    if "finetuned" in summaries:
        limit = policy.finetuned.max_perplexity_ratio
        ratios.append(("finetuned", "", perplexity.trained, perplexity.assembled, limit))
    if "compressed" in summaries:
        limit = policy.compressed.max_perplexity_ratio
        ratios.append(("compressed", "", candidate, perplexity.trained, limit))
    if "base" in summaries:
        assert perplexity.base is not None
        limit = policy.base.max_perplexity_ratio
        ratios.append(("base", "", candidate, perplexity.base, limit))
    for stage, suffix, own, other, threshold in ratios:
        yield StageMetric(
            stage=stage,
            metric=f"perplexity_ratio{suffix}",
            value=own / other,
            limit="at most",
            threshold=threshold,
        )
    for stage, alike in policy.likenesses.items():
        if stage in summaries:
            for metric in gate_limits.metrics(alike, summaries[stage], floor):
                yield StageMetric(stage=stage, **metric.model_dump())
