"""The mix gate: a candidate becomes an artifact only if it passes the policy of its recipe.

The caller supplies all numbers: perplexities and greedy texts from the reference network, and
readings from a running server. Judging therefore needs neither torch nor a model.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from engine.divergence import noise
from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading
from engine.gates import gate_limits, general_gate
from engine.gates.general_gate import GENERAL_TEXT, GeneralMeasurement, GeneralReport
from engine.gates.perplexities import Perplexities, Routing, StageMetric
from engine.gates.policy import STAGES, ParentLimits, Policy, Stage
from engine.gates.report import (
    Construction,
    Data,
    Decode,
    Divergent,
    Failure,
    Report,
    earliest_divergence,
    failure,
    first_divergences,
    provenance,
    surest_divergences,
)
from registry.errors import InvalidInput

# Tokens in one sequence of held-out text: long enough for context to matter, short enough for small
# collections.
WINDOW_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """The measurements of one domain.

    `documents` is the digest of its documents, which a report quotes unless they are private. Every
    sequence of readings is of `continuations`, in their order. `variations` are the reference's own
    readings by what was varied (see `engine.divergence.noise`); the worst of them is the noise
    floor. `readings` holds those of other models, by the stage that compares them:

    - `served`: the serving engine.
    - `finetuned`: the mix before its finetune.
    - `compressed`: the mix before its compression.
    - `base`: the previous version; missing in a domain that it does not have.
    """

    domain: str
    documents: str
    is_private: bool = False
    perplexity: Perplexities
    continuations: Sequence[Continuation]
    variations: noise.Variations
    readings: Mapping[Stage, Sequence[Reading]]
    routing: Routing | None = None


class DomainReport(Data):
    """The report of one domain.

    `served`, `finetuned`, `compressed` and `base` summarize how other models read the candidate's
    greedy texts: the serving engine, the mix before its finetune, the mix before its compression
    and the previous version. None where there is no such stage.
    """

    domain: str = Field(description="Name of the domain, which is that of its expert.")
    documents: str = Field(
        description="SHA-256 of the domain's documents; the gate reads the held-out ones, of a"
        " compressed mix every other one, which its compression was not chosen by."
    )
    perplexity: Perplexities = Field(description="Held-out perplexities.")
    routing: Routing | None = Field(
        default=None,
        description="Where the held-out text goes; null for a mix that is one network, and in"
        " reports from before this field.",
    )
    noise_floor: Summary = Field(description="The reference against itself.")
    served: Summary = Field(description="The serving engine against the reference network.")
    finetuned: Summary | None = Field(
        description="The mix before its finetune; null without a finetune."
    )
    compressed: Summary | None = Field(
        description="The mix before its compression; null without a compression."
    )
    base: Summary | None = Field(
        description="The version that the mix was made from; null without one."
    )
    metrics: tuple[StageMetric, ...] = Field(
        description="Every measured number with its limit, stage by stage."
    )
    examples: dict[Stage, tuple[Divergent, ...]] = Field(
        description="Tokens at which a reader diverged, by stage, the candidate's surest first."
    )


class Sides(Data):
    """Digests of the checkpoints that a stage compares."""

    candidate: str = Field(description="Digest of the checkpoint that wrote the texts.")
    against: dict[str, str] = Field(description="Digests of the other checkpoints, by role.")


class GateReport(Report):
    """The verdict on a candidate, with the numbers of every domain."""

    policy: Policy = Field(description="The limits that the mix was judged by.")
    manifest_digest: str = Field(description="Digest of the candidate's manifest.")
    stages: dict[Stage, Sides] = Field(description="The checkpoints that each stage compared.")
    domains: tuple[DomainReport, ...] = Field(description="The numbers of every judged domain.")
    general: GeneralReport | None = Field(
        default=None,
        description="The numbers on text of no expert's domain; null where there is none, and in"
        " reports from before this stage.",
    )
    unjudged: tuple[str, ...] = Field(
        default=(),
        description="Domains that were not judged, since their experts keep no documents.",
    )
    construction: Construction | None = Field(
        default=None,
        description="What was checked about the making of the mix; null in reports from before.",
    )

    @property
    def about_unjudged(self) -> str:
        """A sentence about the domains that were not judged; empty if all were."""
        if not self.unjudged:
            return ""
        total = len(self.domains) + len(self.unjudged)
        names = ", ".join(self.unjudged)
        return (
            f"{len(self.unjudged)} of {total} domains not judged, since their experts keep no"
            f" documents: {names}"
        )


def judge(
    policy: Policy,
    *,
    manifest_digest: str,
    stages: Mapping[Stage, Sides],
    domains: Sequence[Measurements],
    general: GeneralMeasurement | None = None,
    unjudged: Sequence[str] = (),
    construction: Construction | None = None,
    decode: Decode,
) -> GateReport:
    """Compare every domain with the policy and return the report.

    `decode` turns token ids into the text of examples. At least one domain is required: a mix that
    was not measured has not passed. Raises InvalidInput for thresholds set by the user that the
    noise floor does not reach.
    """
    assert domains
    results = [_DomainResult.of(policy, measured, decode) for measured in domains]
    floors = {result.report.domain: result.report.noise_floor for result in results}
    problems = tuple(
        problem
        for stage, limits in policy.divergence_limits.items()
        if stage in stages
        for problem in gate_limits.unreachable_limits(limits, floors, at=(stage,))
    )
    if problems:
        raise InvalidInput("the policy asks for more than numerics allow", problems=problems)
    general_report = None if general is None else general_gate.report(policy.general, general)
    failures = tuple(itertools.chain.from_iterable(result.failures() for result in results))
    if general_report is not None:
        failures += tuple(
            failure(GENERAL_TEXT, metric, stage=metric.stage, first=None)
            for metric in general_report.metrics
            if not metric.kept
        )
    return GateReport(
        **provenance(),
        policy=policy,
        manifest_digest=manifest_digest,
        stages=dict(stages),
        passed=not failures,
        failures=failures,
        domains=tuple(result.report for result in results),
        general=general_report,
        unjudged=tuple(unjudged),
        construction=construction,
    )


@dataclass(frozen=True)
class _DomainResult:
    """The report of a domain and, by stage, the divergence closest to its prefix."""

    report: DomainReport
    first: Mapping[Stage, Divergent | None]

    @classmethod
    def of(cls, policy: Policy, measured: Measurements, decode: Decode) -> "_DomainResult":
        """Summarize the measurements of one domain."""
        texts, expected = measured.continuations, measured.variations[noise.IN_ONE_PASS]
        floor = noise.floor(texts, measured.variations)
        summaries = {
            stage: summarize(texts, readings, expected=expected)
            for stage, readings in measured.readings.items()
        }
        divergences = {
            stage: [] if measured.is_private else first_divergences(texts, readings, decode)
            for stage, readings in measured.readings.items()
        }
        report = DomainReport(
            domain=measured.domain,
            documents=measured.documents,
            perplexity=measured.perplexity,
            routing=measured.routing,
            noise_floor=floor,
            served=summaries["served"],
            finetuned=summaries.get("finetuned"),
            compressed=summaries.get("compressed"),
            base=summaries.get("base"),
            metrics=tuple(
                sorted(
                    _metrics(policy, measured, summaries, floor),
                    key=lambda metric: STAGES.index(metric.stage),
                )
            ),
            examples={stage: surest_divergences(found) for stage, found in divergences.items()},
        )
        first = {stage: earliest_divergence(found) for stage, found in divergences.items()}
        return cls(report, first)

    def failures(self) -> Iterator[Failure]:
        """Yield a failure for each limit that was not kept."""
        for metric in self.report.metrics:
            if not metric.kept:
                first = self.first.get(metric.stage)
                yield failure(self.report.domain, metric, stage=metric.stage, first=first)


def _metrics(
    policy: Policy, measured: Measurements, summaries: Mapping[Stage, Summary], floor: Summary
) -> Iterator[StageMetric]:
    """Yield the metrics of one domain: ratios of perplexities, then divergence of each stage."""
    perplexity, expert = measured.perplexity, measured.perplexity.experts[measured.domain]
    ratios: list[tuple[Stage, str, float, float, float | None]] = []
    parents: list[tuple[Stage, float, ParentLimits]] = [
        ("assembled", perplexity.assembled, policy.assembled),
        ("candidate", perplexity.candidate, policy.candidate),
    ]
    for stage, value, limits in parents:
        ratios += [
            (stage, "_to_seed", value, perplexity.seed, limits.max_perplexity_ratio_to_seed),
            (stage, "_to_expert", value, expert, limits.max_perplexity_ratio_to_expert),
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
    for stage, suffix, value, baseline, threshold in ratios:
        yield StageMetric(
            stage=stage,
            metric=f"perplexity_ratio{suffix}",
            value=value / baseline,
            limit="at most",
            threshold=threshold,
        )
    for stage, divergence_limits in policy.divergence_limits.items():
        if stage in summaries:
            for metric in gate_limits.metrics(divergence_limits, summaries[stage], floor):
                yield StageMetric(stage=stage, **metric.model_dump())
