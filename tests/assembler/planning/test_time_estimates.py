"""The time of a step is estimated from earlier steps, or roughly without them."""

import pytest

from assembler.planning.plan_data import Estimate
from assembler.planning.time_estimates import Observation, estimate
from registry import settings


def seconds(estimated: Estimate) -> tuple[float, float]:
    return estimated.low, estimated.high


def test_equal_work_takes_equal_time() -> None:
    seen = [Observation(100, 20), Observation(100, 30)]
    assert seconds(estimate("gate", 100, seen)) == (20, 30)


def test_more_work_takes_between_equal_and_proportional_time() -> None:
    assert seconds(estimate("gate", 300, [Observation(100, 20)])) == (20, 60)


def test_less_work_takes_at_least_the_start_of_a_process() -> None:
    assert seconds(estimate("assemble", 0, [Observation(100, 20)])) == (1, 20)


def test_a_known_fixed_part_does_not_grow() -> None:
    assert seconds(estimate("finetune", 300, [Observation(100, 20, fixed=5)])) == (50, 50)


def test_without_earlier_steps_the_estimate_is_rough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEXUSMIX_NUM_THREADS", "4")
    settings.settings.cache_clear()
    rough = estimate("finetune", 80e9, [])
    assert seconds(rough) == (4 + 0.1, 15 + 1)
    assert rough.basis == (
        "rough: nothing was measured here yet; assumed are 20 to 200 GFLOP/s for each core,"
        " 4 of them"
    )
