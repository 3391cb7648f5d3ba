"""Divergent token metrics on hand-made and on random readings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.divergence import Continuation, Reading, Spread, compare, spread, summarise

VOCABULARY = 5
logits = st.lists(st.floats(-20, 20, allow_nan=False), min_size=VOCABULARY, max_size=VOCABULARY)
positions = st.lists(st.tuples(st.integers(0, VOCABULARY - 1), logits), min_size=1, max_size=40)


def read(positions: list[tuple[int, list[float]]]) -> tuple[Continuation, Reading]:
    """A reading made from logits, as a network would make it."""
    predicted = [max(range(VOCABULARY), key=row.__getitem__) for _, row in positions]
    logprobs = [row[token] - _logsumexp(row) for token, row in positions]
    tokens = tuple(token for token, _ in positions)
    return Continuation((0,), tokens), Reading(tuple(predicted), tuple(logprobs))


def _logsumexp(row: list[float]) -> float:
    top = max(row)
    return top + math.log(sum(math.exp(value - top) for value in row))


def test_agreement_counts_every_token() -> None:
    same = compare(Continuation((9,), (1, 2, 3)), Reading((1, 2, 3), (0.0, 0.0, 0.0)))
    assert (same.fdt, same.sdt, same.dppl) == (3, 0, 1.0)


def test_first_and_number_of_divergent_tokens() -> None:
    other = compare(Continuation((9,), (1, 2, 3, 4)), Reading((1, 7, 3, 7), (math.log(0.5),) * 4))
    assert (other.fdt, other.sdt) == (1, 2)
    assert other.dppl == pytest.approx(2)


@given(positions)
def test_divergent_tokens_are_bounded_by_perplexity(
    positions: list[tuple[int, list[float]]],
) -> None:
    """A mismatch leaves the token at most half of the mass: SDT <= (N - n) log2 DPPL."""
    continuation, reading = read(positions)
    divergence = compare(continuation, reading)
    assert divergence.sdt <= len(positions) * math.log2(divergence.dppl) + 1e-6


@given(positions)
def test_first_divergence_bounds_their_number(positions: list[tuple[int, list[float]]]) -> None:
    divergence = compare(*read(positions))
    assert (divergence.sdt == 0) == (divergence.fdt == len(positions))
    assert divergence.sdt <= len(positions) - divergence.fdt


def test_a_hopeless_reading_keeps_a_finite_perplexity() -> None:
    lost = compare(Continuation((0,), (1,)), Reading((2,), (-9999.0,)))
    assert math.isfinite(lost.dppl)


def test_spread_interpolates() -> None:
    assert spread([0, 1, 2, 3, 4]) == Spread(mean=2, p25=1, p50=2, p75=3)
    assert spread([7]) == Spread(mean=7, p25=7, p50=7, p75=7)


def test_summary_pools_tokens() -> None:
    continuations = [Continuation((0,), (1, 1)), Continuation((0,), (1, 1))]
    half = math.log(0.5)
    readings = [Reading((1, 1), (0.0, 0.0)), Reading((2, 1), (half, half))]
    summary = summarise(continuations, readings)
    assert (summary.num_prefixes, summary.num_tokens, summary.equal_share) == (2, 4, 0.75)
    assert summary.perplexity == pytest.approx(math.sqrt(2))
    assert summary.fdt.mean == 1
