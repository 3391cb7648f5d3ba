"""The size of a search's probe."""

import pytest

from engine.compression.measures import ProbeSize


def test_a_limit_beyond_the_compared_tokens() -> None:
    size = ProbeSize(completion_tokens=32)
    size.check_fdt(None)
    size.check_fdt(32)
    with pytest.raises(ValueError, match="min_fdt_75 is 33, but only 32 tokens"):
        size.check_fdt(33)
