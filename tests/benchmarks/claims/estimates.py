"""Figures with 95 % intervals: over the text that was read, and over seeds.

A sample is one number for each window of text, the mean over domains. All networks of a family read
the same windows, so what is resampled are windows, for all networks at once.
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

    def told(self, digits: int = 4) -> list[float]:
        """`[value, low, high]`, as it is kept."""
        return [round(x, digits) for x in (self.value, self.low, self.high)]


def over_text(statistic: Callable[..., NDArray[np.float64]], *samples: Sample) -> Estimate:
    """`statistic` of the means of samples, by the bootstrap over windows (percentiles)."""

    def of_means(*drawn: Sample, axis: int = -1) -> NDArray[np.float64]:
        return statistic(*(own.mean(axis) for own in drawn))

    value = float(of_means(*samples))
    if all(np.ptp(own) == 0 for own in samples):
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
    """The mean over training seeds, by Student's t; of one seed there is no interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    spread = float(stats.sem(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread
    return Estimate(mean, mean - half, mean + half)
