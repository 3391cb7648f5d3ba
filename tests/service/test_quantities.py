"""Bytes, seconds and counts as text, and bytes read from it."""

import pytest

from registry.errors import InvalidInput
from service.quantities import between, count, duration, read_size, size


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (269_060_552, "269 MB"), (5e12, "5 TB"),
     (5e15, "5e+03 TB")],
)  # fmt: skip
def test_sizes_are_decimal(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("5GB", 5_000_000_000), ("1.5 mb", 1_500_000), ("20kB", 20_000), (" 7B ", 7)],
)
def test_sizes_are_read_in_decimal_units(text: str, num_bytes: int) -> None:
    assert read_size(text, at="--size") == num_bytes


@pytest.mark.parametrize("text", ["", "5", "GB", "-5GB", "5GiB", "0GB", "0.1B", "1e3MB", "٣MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--size is .*, expected a size such as 500MB"):
        read_size(text, at="--size")


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
