"""Aggregate divergent token metrics over many prefixes: mean, quartiles, survival, and intervals.

The paper (arXiv 2311.01544, section 3.2) reports means and, for its searches, the 75th percentile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.divergence.metrics import (
    Continuation,
    Divergence,
    Reading,
    compare,
    logprob_difference,
    perplexity,
)

# Bootstrap (Efron 1979, percentile interval) with a fixed seed, so that equal numbers give equal
# reports.
RESAMPLES = 2_000
SEED = 0
INTERVAL_PERCENTILES = (2.5, 97.5)

Interval = tuple[float, float]

# A config for pydantic: it takes the string below each field as the field's description.
DOCUMENTED = {"use_attribute_docstrings": True}


@dataclass(frozen=True)
class Distribution:
    """Mean and quartiles over prefixes; quartiles are interpolated linearly between neighbors."""

    __pydantic_config__: ClassVar = DOCUMENTED

    mean: float
    """Mean over prefixes."""
    p25: float
    """25th percentile."""
    p50: float
    """Median."""
    p75: float
    """75th percentile."""
    interval: Interval | None = None
    """95 % confidence interval of the mean, by resampling prefixes; None for one prefix."""


@dataclass(frozen=True)
class Summary:
    """The metrics of all prefixes of a domain."""

    __pydantic_config__: ClassVar = DOCUMENTED

    num_prefixes: int
    """Number of prefixes."""
    num_tokens: int
    """Number of compared tokens, of all prefixes."""
    equal_share: float
    """Share of all tokens that the candidate predicts as the reference wrote them."""
    perplexity: float
    """The candidate's perplexity on the reference's texts, pooled over all tokens."""
    fdt: Distribution
    """First divergent token: how many tokens of a text agree before the first that does not."""
    sdt: Distribution
    """Divergent tokens of a text: how many corrections keep the candidate on its path."""
    dppl: Distribution
    """The candidate's perplexity on each text."""
    whole_share: float | None = None
    """Share of texts in which the candidate predicts every token; None in reports from before."""
    equal_share_interval: Interval | None = None
    """95 % confidence interval of `equal_share`, by resampling prefixes; None for one prefix."""
    survival: tuple[float, ...] = ()
    """At t - 1 the share of prefixes whose first t tokens equal the reference's."""
    logprob_difference: float | None = None
    """Mean absolute difference of all tokens' log-probabilities from the reference's own reading,
    in nats; None when that reading was not given."""


def summarize(
    continuations: Sequence[Continuation],
    readings: Sequence[Reading],
    *,
    expected: Sequence[Reading] | None = None,
) -> Summary:
    """Compare each reading with its continuation and aggregate the metrics.

    `expected` are the reference's readings of its own texts. At least one continuation with at
    least one token is required.
    """
    divergences = [compare(c, r) for c, r in zip(continuations, readings, strict=True)]
    lengths = [len(c.tokens) for c in continuations]
    sdt = [d.sdt for d in divergences]
    return Summary(
        num_prefixes=len(divergences),
        num_tokens=sum(lengths),
        equal_share=1 - sum(sdt) / sum(lengths),
        perplexity=perplexity([logprob for r in readings for logprob in r.logprobs]),
        fdt=distribution_of([d.fdt for d in divergences]),
        sdt=distribution_of(sdt),
        dppl=distribution_of([d.dppl for d in divergences]),
        whole_share=sdt.count(0) / len(sdt),
        equal_share_interval=_equal_share_interval(sdt, lengths),
        survival=survival(divergences, lengths),
        logprob_difference=None if expected is None else logprob_difference(readings, expected),
    )


def distribution_of(values: Sequence[float]) -> Distribution:
    """Return the distribution of at least one value."""
    p25, p50, p75 = np.percentile(values, [25, 50, 75]).tolist()
    interval = None
    if len(values) > 1:
        interval = _interval(np.asarray(values, float)[_resample(len(values))].mean(-1))
    return Distribution(mean=float(np.mean(values)), p25=p25, p50=p50, p75=p75, interval=interval)


def survival(divergences: Sequence[Divergence], lengths: Sequence[int]) -> tuple[float, ...]:
    """Return for t = 1, 2, ... the share of prefixes that have not diverged after t tokens.

    A text that ends without divergence says nothing about later positions, so it is left out of
    them (Kaplan and Meier 1958). For texts of one length the result is the plain share.
    """
    fdt, length = np.array([d.fdt for d in divergences]), np.array(lengths)
    shares, share = [], 1.0
    for position in range(length.max()):
        at_risk = (fdt >= position) & (length > position)
        if at_risk.any():
            share *= 1 - float((fdt[at_risk] == position).mean())
        shares.append(share)
    return tuple(shares)


def _equal_share_interval(sdt: Sequence[int], lengths: Sequence[int]) -> Interval | None:
    """Return the interval of the equal share, by resampling; None for one prefix."""
    if len(sdt) == 1:
        return None
    samples = _resample(len(sdt))
    return _interval(1 - np.array(sdt)[samples].sum(-1) / np.array(lengths)[samples].sum(-1))


def _resample(count: int) -> NDArray[np.int64]:
    """Draw positions [RESAMPLES, count] with replacement."""
    return np.random.default_rng(SEED).integers(count, size=(RESAMPLES, count))


def _interval(statistics: NDArray[np.float64]) -> Interval:
    """Return the 95 % percentile interval of resampled statistics."""
    low, high = np.percentile(statistics, INTERVAL_PERCENTILES).tolist()
    return low, high
