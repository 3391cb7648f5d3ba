"""Bytes, seconds and counts as text."""

import pytest

from service.quantities import between, count, duration, size


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (269_060_552, "269 MB"), (5e12, "5 TB"),
     (5e15, "5e+03 TB")],
)  # fmt: skip
def test_sizes_are_decimal(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (3599.6, "60 min 00 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (49_152, "49.2 k"), (134_515_008, "135 M"), (2e9, "2 G")]
)
def test_counts_have_three_digits(number: float, text: str) -> None:
    assert count(number) == text


def test_a_range_that_reads_alike_is_one_number() -> None:
    assert between(1, 2.5) == "1.0 s to 2.5 s"
    assert between(1.01, 1.04) == "1.0 s"
