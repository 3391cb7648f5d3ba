"""Measure a mix of many experts with nothing trained beside its rivals, on sealed domains too.

Sealed domains are those that no default was chosen on. Rivals read the same windows, so differences
are paired. Longer windows follow, and windows that change their domain in the middle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims import text_classifier, upcycling
from tests.benchmarks.claims.estimates import over_text
from tests.benchmarks.claims.families.windows import Windows
from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import figures

DEFAULT = "nexus"
METHODS = (DEFAULT, "linear", "flexolmo", *upcycling.RIVALS)
# Beside the default: longer and shorter rows, which make routers surer and softer.
SCALES = (4, 2, 0.7)


def measure(
    mixes: Mixes, *, sealed: Sequence[str], lengths: Mapping[int, int], switch: tuple[int, int]
) -> dict[str, Any]:
    """Measure all methods on the domains that are sealed and on the others.

    `lengths` has the number of windows of a domain by their length in tokens, `switch` the length
    and the number of windows that change their domain.
    """
    groups = {
        "chosen on": [name for name in mixes.domains if name not in sealed],
        "sealed": list(sealed),
    }
    networks = _networks(mixes)
    measured: dict[str, Any] = {
        "domains": groups,
        "groups": {name: _methods(mixes, networks, group) for name, group in groups.items()},
        "longer": {
            str(length): _shares(mixes, _windows(mixes, length, count), networks)
            for length, count in lengths.items()
        },
    }
    switched = _windows(mixes, *switch).switched()
    return measured | {"switch": {"length": switch[0], **_shares(mixes, switched, networks)}}


def _networks(mixes: Mixes) -> dict[str, Mix | Manifest]:
    """Return the networks by name: the dense ones, the default, and its rivals."""
    experts = mixes.domains
    default = upcycling.mix_of(DEFAULT, experts, tokens=0)
    scaled = {
        f"{DEFAULT}, router scale {scale}": replace(default, changes={"router_scale": scale})
        for scale in SCALES
    }
    return {
        "seed": mixes.family.seed,
        "merge": Mix(experts=experts, preset="merge"),
        **{method: upcycling.mix_of(method, experts, tokens=0) for method in METHODS},
        **scaled,
    }


def _methods(
    mixes: Mixes, networks: Mapping[str, Mix | Manifest], domains: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of each method, and its perplexity over the default's."""
    measured = {
        name: figures.of_network(mixes, network, domains) | _beside(mixes, network, domains)
        for name, network in networks.items()
    }
    measured["right expert"] = figures.oracle(mixes, domains)
    measured[upcycling.CLASSIFIER] = text_classifier.measure(mixes, domains)
    return measured


def _beside(mixes: Mixes, network: Mix | Manifest, domains: Sequence[str]) -> dict[str, Any]:
    default = upcycling.mix_of(DEFAULT, mixes.domains, tokens=0)
    one, other = (figures.sample(mixes.read(each), domains) for each in (network, default))
    return {"perplexity_over_default": over_text(figures.ratio, one, other).rounded()}


def _windows(mixes: Mixes, length: int, count: int) -> Windows:
    return Windows.of(mixes.family, mixes.blobs, count=count, length=length)


def _shares(
    mixes: Mixes, windows: Windows, networks: Mapping[str, Mix | Manifest]
) -> dict[str, Any]:
    """Return each method's share of the gain over all domains, and the number of windows."""
    read = mixes.read_in(windows)
    shares = {
        name: figures.of_network(read, network, read.domains)["share_of_gain"]
        for name, network in networks.items()
    }
    shares[upcycling.CLASSIFIER] = text_classifier.measure(read, read.domains)["share_of_gain"]
    return {"windows": windows.count, "share_of_gain": shares}
