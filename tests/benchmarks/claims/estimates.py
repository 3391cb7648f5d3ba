"""Compute figures with 95 % intervals: over windows of text, and over training seeds.

A sample has one number for each window of text: the mean over domains. All networks of a family
read the same windows. So the bootstrap draws windows, the same ones for all networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000

Sample = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> list[float]:
        """Return `[value, low, high]`, as results store it."""
        return [round(x, digits) for x in (self.value, self.low, self.high)]


def over_text(statistic: Callable[..., NDArray[np.float64]], *samples: Sample) -> Estimate:
    """Estimate `statistic` of the samples' means by a percentile bootstrap over windows."""

    def of_means(*drawn: Sample, axis: int = -1) -> NDArray[np.float64]:
        return statistic(*(sample.mean(axis) for sample in drawn))

    value = float(of_means(*samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        return Estimate(value, value, value)
    interval = stats.bootstrap(
        samples,
        of_means,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def over_seeds(values: Sequence[float]) -> Estimate:
    """Estimate the mean over training seeds with Student's t; one seed gives an interval of NaN."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    spread = float(stats.sem(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread
    return Estimate(mean, mean - half, mean + half)
