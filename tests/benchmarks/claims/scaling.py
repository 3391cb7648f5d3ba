"""Measure mixes without training as their number of experts grows; some domains are alike."""

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import figures


def measure(mixes: Mixes, *, counts: Sequence[int]) -> dict[str, Any]:
    """Measure mixes of the first `counts` experts of a family.

    Each mix is measured on all its domains, and on the domains of the smallest mix. There, tokens
    may go to experts that were added later.
    """
    first = mixes.domains[: counts[0]]
    measured = {}
    for count in counts:
        experts = mixes.domains[:count]
        mix = Mix(experts=experts)
        reading = mixes.read(mix)
        measured[str(count)] = figures.of_mix(mixes, mix) | {
            "experts": list(experts),
            "share_of_gain_on_first": figures.of_network(mixes, mix, first)["share_of_gain"],
            "stolen_of_first": round(1 - figures.to_own(reading, experts, first), 3),
        }
    return measured
