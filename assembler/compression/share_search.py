"""What share of each component becomes zero: rounds that spend zeros where they cost least.

Source: Divergent Token Metrics (arXiv 2311.01544, on sparsification). A round raises the total
share of zeros by a step; for each component alone it is measured how the network strays when more
of it is zero, and the new shares follow from that, until the next round measures again.

What the shares are is decided otherwise than there. The paper brings all components down to one
level, however many weights they have; what the network loses is the sum of what its components do
to it, so here that sum is least:

- A loss is the share of divergent tokens in the checkpoint's own text and the log of DPPL over its
  own. The paper's 75th percentile of FDT lies at the end of as few and short texts as a CPU reads;
  FDT itself uses a text up to its first divergence, these two use all of it.
- Of each component it is read once, at the largest share that this round may give it, and taken to
  grow with the square of the share: what little magnitude pruning takes first harms least.
- So few tokens tell components apart badly. A component's own reading counts as much as the mean of
  all: what seems to cost nothing is not set to zero whole. Losses below zero, which are noise,
  count as none.
- Retraining between rounds is left to who takes them (`assembler.compression.sparsify`): a round
searches
  on the network as it is then, against the checkpoint as it was at first.

A component is read from its own layer on. Races, as among units of int8, have no place here: a
reading is needed of every component.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from assembler.compression.layerwise import LayerwiseReader
from assembler.compression.pruning import as_pruned
from assembler.network.model import Network
from engine.compression.sparsity_components import Component, Shares, total_share
from engine.compression.sparsity_curve import By
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation, Reading

# Steps that a component may gain in one round, where its loss is read.
REACH = 1.5
# Halvings of an interval of prices, far below what a reading can tell.
BISECTIONS = 60

OnProgress = Callable[[str], None]


class ShareSearch:
    """Rounds of a search on one network and some texts, all of one length."""

    def __init__(
        self,
        network: Network,
        components: Sequence[Component],
        texts: Sequence[Continuation],
        *,
        by: By,
        on_progress: OnProgress,
    ) -> None:
        self._network, self._components, self._texts = network, components, texts
        self._by = by
        self._reader = LayerwiseReader(network, texts)
        self._on_progress = on_progress

    def rounds(self, totals: Iterable[float]) -> Iterator[dict[str, float]]:
        """The shares of all components after each round, which raises their total to the next of
        the rising `totals`."""
        shares = dict.fromkeys((c.name for c in self._components), 0.0)
        for total in totals:
            if self._by == "uniform" or total >= 1:
                shares = dict.fromkeys(shares, total)
            else:
                shares = self._raised(shares, total)
            yield shares

    def _raised(self, shares: Shares, total: float) -> dict[str, float]:
        limits = limits_of(self._components, shares, total=total)
        with as_pruned(self._network, shares):
            states = self._reader.states()
            before = self._loss(self._reader.read(states, layer=len(states) - 1))
            losses: dict[str, float] = {}
            for number, component in enumerate(self._components, start=1):
                self._on_progress(
                    f"to {total:.0%} zeros; component {number} of {len(self._components)}"
                )
                with as_pruned(self._network, {component.name: limits[component.name]}):
                    readings = self._reader.read(states, layer=component.layer)
                losses[component.name] = self._loss(readings) - before
        return least_losing(self._components, shares, limits, losses, total=total)

    def _loss(self, readings: Sequence[Reading]) -> float:
        """Less a constant, which is the same for all readings of these texts."""
        own = summarize(self._texts, readings)
        divergent = 1 - own.equal_share if self._by == "fdt" else 0.0
        return divergent + math.log(own.perplexity)


def limits_of(components: Sequence[Component], shares: Shares, *, total: float) -> dict[str, float]:
    """The largest share of each component in a round to `total`: `REACH` steps more than it has, or
    as many more as it takes where too many are all zero already."""
    step = total - total_share(components, shares)
    reach = 0.0
    limits: dict[str, float] = dict(shares)
    while total_share(components, limits) < total:
        reach += REACH * step
        limits = {name: min(1.0, share + reach) for name, share in shares.items()}
    return limits


def least_losing(
    components: Sequence[Component],
    shares: Shares,
    limits: Shares,
    losses: Mapping[str, float],
    *,
    total: float,
) -> dict[str, float]:
    """Shares of `total` together, between those that there are and the limits, whose losses are
    least in sum; `losses` are what each component adds at its limit.

    Where the loss of a component grows as `a s^2`, the next weight costs `2 a s` over the number of
    its weights: one price for all.
    """
    prices = _prices(components, shares, limits, losses)

    def at(level: float) -> dict[str, float]:
        return {
            name: min(limits[name], max(shares[name], level / price))
            for name, price in prices.items()
        }

    low, high = 0.0, max(prices.values())
    for _ in range(BISECTIONS):
        level = (low + high) / 2
        if total_share(components, at(level)) < total:
            low = level
        else:
            high = level
    return at(high)


def _prices(
    components: Sequence[Component],
    shares: Shares,
    limits: Shares,
    losses: Mapping[str, float],
) -> dict[str, float]:
    """Of a weight of each component at a share of one: half its own, half the mean of all."""
    own: dict[str, float] = {}
    for c in components:
        grown = limits[c.name] ** 2 - shares[c.name] ** 2
        own[c.name] = max(0.0, losses[c.name]) / (grown * c.num_weights) if grown else 0.0
    mean = sum(own[c.name] * c.num_weights for c in components)
    mean /= sum(c.num_weights for c in components)
    if mean == 0:
        return dict.fromkeys(own, 1.0)  # nothing tells them apart
    return {name: (price + mean) / 2 for name, price in own.items()}
