"""Environment variables for the OpenMP threads of a process."""

from collections.abc import Mapping


def spin_count_variables(count: int, base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let a thread poll `count` times before it sleeps.

    The variable is libgomp's GOMP_SPINCOUNT. Return an empty mapping when `base` sets
    OMP_WAIT_POLICY, because libgomp would let GOMP_SPINCOUNT override that choice.
    """
    return {} if "OMP_WAIT_POLICY" in base else {"GOMP_SPINCOUNT": str(count)}
