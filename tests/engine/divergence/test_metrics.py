"""Divergent token metrics of hand-made and of random readings."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.divergence.metrics import Continuation, Reading, compare, logprob_difference, worst

VOCABULARY = 5
logits = st.lists(st.floats(-20, 20, allow_nan=False), min_size=VOCABULARY, max_size=VOCABULARY)
positions = st.lists(st.tuples(st.integers(0, VOCABULARY - 1), logits), min_size=1, max_size=40)

Positions = list[tuple[int, list[float]]]


def read(positions: Positions) -> tuple[Continuation, Reading]:
    tokens = tuple(token for token, _ in positions)
    logits_TV = np.array([row for _, row in positions])
    return Continuation((0,), tokens), Reading.of_logits(logits_TV, tokens)


def test_agreement_counts_every_token() -> None:
    same = compare(Continuation((9,), (1, 2, 3)), Reading((1, 2, 3), (0.0, 0.0, 0.0)))
    assert (same.fdt, same.sdt, same.dppl) == (3, 0, 1.0)


def test_first_and_number_of_divergent_tokens() -> None:
    other = compare(Continuation((9,), (1, 2, 3, 4)), Reading((1, 7, 3, 7), (math.log(0.5),) * 4))
    assert (other.fdt, other.sdt) == (1, 2)
    assert other.dppl == pytest.approx(2)


def test_of_equal_logits_the_lowest_token_is_predicted() -> None:
    reading = Reading.of_logits(np.array([[0.0, 3.0, 3.0], [2.0, 1.0, 2.0]]), (2, 0))
    assert reading.predicted == (1, 0)
    assert reading.logprobs[1] == pytest.approx(-math.log(2 + math.exp(-1)))


@given(positions)
def test_divergent_tokens_are_bounded_by_perplexity(positions: Positions) -> None:
    """A divergent token has at most probability 1/2: SDT <= (N - n) log2 DPPL."""
    divergence = compare(*read(positions))
    assert divergence.sdt <= len(positions) * math.log2(divergence.dppl) + 1e-6


@given(positions)
def test_first_divergence_bounds_their_number(positions: Positions) -> None:
    divergence = compare(*read(positions))
    assert (divergence.sdt == 0) == (divergence.fdt == len(positions))
    assert divergence.sdt <= len(positions) - divergence.fdt


def test_perplexity_of_an_impossible_text_is_finite() -> None:
    lost = compare(Continuation((0,), (1,)), Reading((2,), (-9999.0,)))
    assert math.isfinite(lost.dppl)


def test_logprob_difference_is_the_mean_over_all_tokens() -> None:
    expected = [Reading((1, 1, 1), (-0.5, -0.5, -0.5)), Reading((1,), (-2.0,))]
    readings = [Reading((1, 1, 1), (-0.4, -0.6, -0.5)), Reading((1,), (-1.8,))]
    assert logprob_difference(readings, expected) == pytest.approx(0.1)


@pytest.mark.parametrize("logprob", [math.nan, -math.inf])
def test_logprob_difference_of_nan_or_infinity_is_finite(logprob: float) -> None:
    difference = logprob_difference([Reading((1,), (logprob,))], [Reading((1,), (-0.5,))])
    assert 100 < difference < math.inf


def test_the_worst_reading_diverges_soonest_then_most_often() -> None:
    text = Continuation((0,), (1, 1, 1))
    equal, late = Reading((1, 1, 1), (0.0,) * 3), Reading((1, 1, 2), (0.0,) * 3)
    early, often = Reading((1, 2, 1), (0.0,) * 3), Reading((1, 2, 2), (0.0,) * 3)
    assert worst(text, [equal, late]) == late
    assert worst(text, [equal, often, late, early]) == often
