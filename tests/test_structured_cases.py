"""Readers of what strangers send refuse it or read it, in linear time and bounded memory."""

import pytest

from tests import structured_cases
from tests.structured_cases import KINDS

CASES = 100
COUNT = 4000


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_structured_cases_are_read_or_refused(name: str) -> None:
    read, refused = structured_cases.run(name, cases=CASES)
    # If all were of one kind, the cases would show nothing.
    assert read + refused >= CASES
    assert min(read, refused) > 0


@pytest.mark.parametrize("name", KINDS)
def test_memory_is_bounded(name: str) -> None:
    kind = KINDS[name]
    raw = kind.of_length(COUNT)
    allowed = structured_cases.MAX_BYTES_OF_NOTHING + structured_cases.MAX_BYTES_PER_BYTE * len(raw)
    assert structured_cases.peak_bytes(kind, raw) < allowed
