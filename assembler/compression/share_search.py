"""Choose the share of zeros of each component: rounds that set zeros where they cost least.

Source: Divergent Token Metrics (arXiv 2311.01544, section on sparsification). A round raises the
total share of zeros by a step. It measures for each component alone how the network changes when
more of it is zero, and derives the new shares from that.

The choice of shares differs from the paper's. The paper brings all components to one level of FDT,
however many weights they have. Here the sum of the losses of all components is minimized:

- A loss is the share of divergent tokens in the checkpoint's own text plus the log ratio of DPPL.
  With as few and short texts as a CPU reads, the paper's 75th percentile of FDT lies at the end of
  the texts. FDT uses a text up to its first divergence; these two measures use all of it.
- Each component is measured once, at the largest share that this round may give it. Its loss is
  assumed to grow with the square of the share, since magnitude pruning takes the least harmful
  weights first.
- So little text separates components badly. A component's own loss therefore counts as much as the
  mean of all, so that no component is set to zero as a whole because it seems to cost nothing.
  Negative losses are noise and count as zero.
- The caller retrains between rounds (`assembler.compression.sparsify`). A round searches on the
  network as it is then, and compares with the text of the original checkpoint.

A component is read from its own layer on. Unlike int8 units, components are not raced: every
component's loss is needed.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from assembler.compression.layerwise import LayerwiseReader
from assembler.compression.pruning import as_pruned
from assembler.network.model import Network
from assembler.progress import OnMessage
from engine.compression.sparsity_components import Component, Shares, total_share
from engine.compression.sparsity_curve import By
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation, Reading

# Number of steps that a component may gain in one round; its loss is measured at that share.
REACH = 1.5
# Halvings of the interval of prices: far finer than the losses are known.
BISECTIONS = 60


class ShareSearch:
    """A search on one network with texts of one length."""

    def __init__(
        self,
        network: Network,
        components: Sequence[Component],
        texts: Sequence[Continuation],
        *,
        by: By,
        on_progress: OnMessage,
    ) -> None:
        self._network, self._components, self._texts = network, components, texts
        self._by = by
        self._reader = LayerwiseReader(network, texts)
        self._on_progress = on_progress

    def rounds(self, totals: Iterable[float]) -> Iterator[dict[str, float]]:
        """Yield the shares of all components after each round; `totals` must rise.

        Each round raises the total share of zeros to the next total.
        """
        shares = dict.fromkeys((c.name for c in self._components), 0.0)
        for total in totals:
            if self._by == "uniform" or total >= 1:
                shares = dict.fromkeys(shares, total)
            else:
                shares = self._raise(shares, total)
            yield shares

    def _raise(self, shares: Shares, total: float) -> dict[str, float]:
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
        """Return the loss up to a constant that all readings of these texts share."""
        summary = summarize(self._texts, readings)
        divergent = 1 - summary.equal_share if self._by == "fdt" else 0.0
        return divergent + math.log(summary.perplexity)


def limits_of(components: Sequence[Component], shares: Shares, *, total: float) -> dict[str, float]:
    """Return the largest share of each component in a round to `total`.

    It is `REACH` steps above the present share, or more where too many components are all zero to
    reach the total otherwise.
    """
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
    """Return the shares between `shares` and `limits` with the least sum of losses.

    Their total is `total`. `losses` holds what each component adds at its limit. The loss of a
    component is `a s^2` for a share s, so its next weight costs `2 a s` divided by its number of
    weights. At the minimum this price is the same for all components.
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
    """Return the price of a weight of each component at a share of one.

    Half of it is the component's own price, half the mean over all.
    """
    prices: dict[str, float] = {}
    for c in components:
        grown = limits[c.name] ** 2 - shares[c.name] ** 2
        prices[c.name] = max(0.0, losses[c.name]) / (grown * c.num_weights) if grown else 0.0
    mean = sum(prices[c.name] * c.num_weights for c in components)
    mean /= sum(c.num_weights for c in components)
    if mean == 0:
        return dict.fromkeys(prices, 1.0)  # nothing separates them
    return {name: (price + mean) / 2 for name, price in prices.items()}
