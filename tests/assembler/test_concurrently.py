"""Work side by side: results in order, and an end at the first failure."""

import threading

import pytest

from assembler.concurrently import each


def test_results_are_in_the_order_of_the_items() -> None:
    """The first call ends only when the second has: they run at the same time."""
    second_ended = threading.Event()

    def function(item: int) -> int:
        if item == 0:
            assert second_ended.wait(60)
        elif item == 1:
            second_ended.set()
        return 10 * item

    assert each(function, range(4), workers=2) == [0, 10, 20, 30]


def test_a_failure_is_raised_and_nothing_more_begins() -> None:
    begun: list[int] = []

    def function(item: int) -> None:
        begun.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        each(function, range(1000), workers=1)
    assert len(begun) < 1000
