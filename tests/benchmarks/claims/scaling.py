"""How a mix without training bears more experts, near twins among them."""

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import figures


def measure(mixes: Mixes, *, counts: Sequence[int]) -> dict[str, Any]:
    """Of mixes of the first experts of a family, on the domains of those alone and on the domains
    of the smallest mix, whose tokens later experts may steal."""
    first = mixes.domains[: counts[0]]
    told = {}
    for count in counts:
        experts = mixes.domains[:count]
        mix = Mix(experts=experts)
        reading = mixes.read(mix)
        told[str(count)] = figures.of_mix(mixes, mix) | {
            "experts": list(experts),
            "share_of_gain_on_first": figures.of_network(mixes, mix, first)["share_of_gain"],
            "stolen_of_first": round(1 - figures.to_own(reading, experts, first), 3),
        }
    return told
