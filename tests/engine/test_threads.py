"""The environment variables that decide how threads wait."""

import pytest

from engine.threads import spin_count_variables


@pytest.mark.parametrize(
    ("base", "expected"), [({}, {"GOMP_SPINCOUNT": "7"}), ({"OMP_WAIT_POLICY": "PASSIVE"}, {})]
)
def test_threads_spin_unless_a_policy_was_chosen(
    base: dict[str, str], expected: dict[str, str]
) -> None:
    assert spin_count_variables(7, base) == expected
