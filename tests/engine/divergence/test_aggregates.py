"""Means, quartiles, survival and intervals over prefixes."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.divergence.aggregates import Distribution, distribution_of, summarize, survival
from engine.divergence.metrics import Continuation, Divergence, Reading


def divergences(*fdt: int) -> list[Divergence]:
    return [Divergence(fdt=value, sdt=0, dppl=1.0) for value in fdt]


def test_quartiles_are_interpolated() -> None:
    distribution = distribution_of([0, 1, 2, 3, 4])
    assert replace(distribution, interval=None) == Distribution(mean=2, p25=1, p50=2, p75=3)


def test_one_value_has_no_interval() -> None:
    assert distribution_of([7]) == Distribution(mean=7, p25=7, p50=7, p75=7, interval=None)


def test_intervals_cover_the_mean_in_95_percent_of_samples() -> None:
    """About 190 of 200 intervals hold the mean; percentile intervals are a bit narrow."""
    random = np.random.default_rng(5)
    intervals = [distribution_of(random.exponential(size=60).tolist()).interval for _ in range(200)]
    covered = sum(low <= 1 <= high for low, high in filter(None, intervals))
    assert 175 <= covered <= 198


def test_equal_numbers_have_equal_intervals() -> None:
    assert distribution_of([1, 5, 9, 2]) == distribution_of([1, 5, 9, 2])


def test_survival_of_texts_of_one_length_is_the_plain_share() -> None:
    assert survival(divergences(0, 2, 4, 4), [4] * 4) == pytest.approx((0.75, 0.75, 0.5, 0.5))


def test_a_text_that_ends_undiverged_is_left_out_of_later_positions() -> None:
    """Two of three texts are longer than the short one; one of them diverges at its last token."""
    shares = survival(divergences(2, 3, 4), [2, 4, 4])
    assert shares == pytest.approx((1, 1, 1, 0.5))


def test_summary_pools_tokens() -> None:
    continuations = [Continuation((0,), (1, 1)), Continuation((0,), (1, 1))]
    half = math.log(0.5)
    readings = [Reading((1, 1), (0.0, 0.0)), Reading((2, 1), (half, half))]
    summary = summarize(continuations, readings)
    assert (summary.num_prefixes, summary.num_tokens, summary.equal_share) == (2, 4, 0.75)
    assert summary.perplexity == pytest.approx(math.sqrt(2))
    assert summary.fdt.mean == 1
    assert summary.survival == (0.5, 0.5)
    assert summary.equal_share_interval == (0.5, 1)
    assert summary.logprob_difference is None


def test_logprob_difference_is_relative_to_the_references_reading() -> None:
    texts = [Continuation((0,), (1, 1))]
    expected, reading = Reading((1, 1), (-0.5, -0.5)), Reading((1, 1), (-0.5, -0.7))
    assert summarize(texts, [expected], expected=[expected]).logprob_difference == 0
    assert summarize(texts, [reading], expected=[expected]).logprob_difference == pytest.approx(0.1)
