"""The stage `general`: a mix on text of no expert's domain, against its parents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from engine.divergence import noise
from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading
from engine.gates import gate_limits
from engine.gates.gate_limits import DivergenceLimits
from engine.gates.perplexities import Perplexities, StageMetric
from engine.gates.policy import GeneralLimits
from engine.gates.report import Data

# Stands for the domain in failures and tables.
GENERAL_TEXT = "general text"


@dataclass(frozen=True, kw_only=True)
class GeneralMeasurement:
    """What was measured on text of no expert's domain; `documents` is the digest of that text.

    `continuations` are the mix's greedy texts, `variations` its own readings of them (see
    `engine.divergence.noise`), and `seed` the seed's, all in one order. Without texts only
    perplexity is judged.
    """

    documents: str
    perplexity: Perplexities
    continuations: Sequence[Continuation] = ()
    variations: noise.Variations = field(default_factory=dict)
    seed: Sequence[Reading] = ()


class GeneralReport(Data):
    """The report of text of no expert's domain."""

    documents: str = Field(
        description="SHA-256 of the documents of the family's projection; the gate reads those held"
        " out."
    )
    perplexity: Perplexities = Field(description="Held-out perplexities.")
    seed: Summary | None = Field(
        default=None,
        description="The seed, which reads greedy texts of the mix; null where there are none.",
    )
    metrics: tuple[StageMetric, ...] = Field(description="Every measured number with its limit.")


def report(limits: GeneralLimits, measured: GeneralMeasurement) -> GeneralReport:
    """Judge what was measured, and return the report.

    How far a mix diverges from its seed has no limit: it is another model.
    """
    texts = measured.continuations
    summary, divergence = None, list[StageMetric]()
    if texts:
        expected = measured.variations[noise.IN_ONE_PASS]
        summary = summarize(texts, measured.seed, expected=expected)
        floor = noise.floor(texts, measured.variations)
        divergence = [
            StageMetric(stage="general", **metric.model_dump())
            for metric in gate_limits.metrics(DivergenceLimits(), summary, floor)
        ]
    return GeneralReport(
        documents=measured.documents,
        perplexity=measured.perplexity,
        seed=summary,
        metrics=(*_ratios(limits, measured.perplexity), *divergence),
    )


def _ratios(limits: GeneralLimits, perplexity: Perplexities) -> Iterator[StageMetric]:
    worst = max(perplexity.seed, *perplexity.experts.values())
    for name, baseline, threshold in (
        ("seed", perplexity.seed, limits.max_perplexity_ratio_to_seed),
        ("parents", worst, limits.max_perplexity_ratio_to_parents),
    ):
        yield StageMetric(
            stage="general",
            metric=f"perplexity_ratio_to_{name}",
            value=perplexity.candidate / baseline,
            limit="at most",
            threshold=threshold,
        )
