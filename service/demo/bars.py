"""The promises about the mix of the demo, checked on the figures that it measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.reports.mix_comparison import Column, MixComparison

MIN_SHARE_BEFORE = 0.70
MIN_SHARE_AFTER = 0.95
# In its own domain an expert has at most this share of the seed's perplexity.
MAX_EXPERT_RATIO = 0.75


@dataclass(frozen=True)
class Bar:
    """One promise: `value` must be below or above `limit`."""

    claim: str
    value: float
    relation: Literal["<", "<=", ">="]
    limit: float

    @property
    def held(self) -> bool:
        """Whether the promise is kept; a NaN keeps none."""
        if self.relation == ">=":
            return self.value >= self.limit
        return self.value < self.limit or (self.relation == "<=" and self.value == self.limit)

    def __str__(self) -> str:
        return f"{self.claim}: {self.value:.3f}, promised {self.relation} {self.limit:.3f}"


def check(comparison: MixComparison) -> list[Bar]:
    """Return every promise, kept or not."""
    return [
        *_experts(comparison),
        *_mix(comparison, comparison.assembled, min_share=MIN_SHARE_BEFORE),
        *(
            _mix(comparison, comparison.finetuned, min_share=MIN_SHARE_AFTER)
            if comparison.finetuned
            else ()
        ),
    ]


def _experts(comparison: MixComparison) -> Iterator[Bar]:
    rows = zip(comparison.domains, comparison.oracle.values, comparison.seed.values, strict=True)
    for domain, expert, seed in rows:
        claim = f"{domain}: the expert's perplexity over the seed's"
        yield Bar(claim, expert / seed, "<=", MAX_EXPERT_RATIO)


def _mix(comparison: MixComparison, mix: Column, *, min_share: float) -> Iterator[Bar]:
    baselines = (comparison.seed, *comparison.experts, comparison.merge)
    for other in (column for column in baselines if column is not None):
        claim = f"{mix.title}: mean log-perplexity against that of {other.title}"
        yield Bar(claim, mix.mean_log, "<", other.mean_log)
    claim = f"{mix.title}: share of the right expert's gain"
    yield Bar(claim, comparison.share_of_gain(mix), ">=", min_share)
