"""How the OpenMP threads of a process wait for one another."""

from collections.abc import Mapping


def spinning(count: int, base: Mapping[str, str]) -> dict[str, str]:
    """What a process started in `base` must know so that a thread looks `count` times for work
    before it sleeps (libgomp's GOMP_SPINCOUNT); nothing where a policy has been chosen, which
    libgomp would pass over."""
    return {} if "OMP_WAIT_POLICY" in base else {"GOMP_SPINCOUNT": str(count)}
