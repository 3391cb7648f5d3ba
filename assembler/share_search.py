"""What share of each component becomes zero: rounds of sensitivity curves and one common level.

Source: Divergent Token Metrics (arXiv 2311.01544, on sparsification). A round raises the total
share of zeros by a step. For each component alone it is measured how true the network stays when
nothing is added to the component's own share, half a step, one and a half, and all that is left;
between these the level is interpolated linearly. The new shares are those whose worst level is
highest while their mean, weighted by parameters, has grown by the step: one level for all
components, and each gets as many zeros as it takes to come down to it.

What the paper leaves open is decided here:
- A level is mean FDT, in tokens, less the log of DPPL over that of the checkpoint itself. The paper
  searches by the 75th percentile of 1,000 prefixes of 100 tokens; of the few that a CPU reads, that
  percentile lies at the end of the text for nearly all components, which it then does not tell
  apart. FDT decides by whole tokens, DPPL between those it calls equal.
- Levels that rise with more zeros, which is noise, count as the level before.
- Retraining between rounds is left to who takes them (`assembler.sparsification`): a round searches
  on the network as it is then, against the checkpoint as it was at first.

Two things save time and change nothing: a component is read from its own layer on, and the end of a
curve, all zeros, is read only where the common level could lie behind one and a half steps. Races,
as among units of int8, have no place here: a curve is needed of every component.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from assembler.layerwise import LayerwiseReader, States
from assembler.network import Network
from assembler.pruning import as_pruned
from engine.divergence.aggregates import summarise
from engine.divergence.metrics import Continuation, Reading
from engine.sparsity import Component, Shares, total_share
from engine.sparsity_curve import By

# Halvings of an interval of levels, which are tokens: far below what a reading can tell.
BISECTIONS = 50

OnProgress = Callable[[str], None]
# Shares in rising order, and what the network is worth at each.
Sensitivity = tuple[list[float], list[float]]


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
        states = self._reader.states()
        readings = self._reader.read(states, layer=len(states) - 1)
        self._floor_dppl = summarise(texts, readings).perplexity

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
        step = total - total_share(self._components, shares)
        with as_pruned(self._network, shares):
            states = self._reader.states()
            own = self._level(self._reader.read(states, layer=len(states) - 1))
            curves: dict[str, Sensitivity] = {}
            for number, component in enumerate(self._components, start=1):
                self._tell(total, number, len(self._components))
                near = [min(1.0, shares[component.name] + x * step) for x in (0.5, 1.5)]
                levels = [self._with(states, component, share) for share in near]
                curves[component.name] = ([shares[component.name], *near], [own, *levels])
            # A curve that is not known behind its end gives too low a common level: what lies below
            # it already does not reach its end.
            lowest = common_level(self._components, curves, total)
            open_ended = [c for c in self._components if _end(curves[c.name]) > lowest]
            for number, component in enumerate(open_ended, start=1):
                self._tell(total, number, len(open_ended))
                at, levels = curves[component.name]
                if at[-1] < 1:
                    end = self._with(states, component, 1.0)
                    curves[component.name] = ([*at, 1.0], [*levels, end])
        return shares_at_level(self._components, curves, total)

    def _tell(self, total: float, number: int, count: int) -> None:
        self._on_progress(f"to {total:.0%} zeros; component {number} of {count}")

    def _with(self, states: States, component: Component, share: float) -> float:
        with as_pruned(self._network, {component.name: share}):
            return self._level(self._reader.read(states, layer=component.layer))

    def _level(self, readings: Sequence[Reading]) -> float:
        own = summarise(self._texts, readings)
        loss = math.log(own.perplexity / self._floor_dppl)
        return (own.fdt.mean if self._by == "fdt" else 0.0) - loss


def common_level(
    components: Sequence[Component], curves: dict[str, Sensitivity], total: float
) -> float:
    """The highest level at which the components together have `total` zeros, or more."""
    return _bisected(components, curves, total)[0]


def shares_at_level(
    components: Sequence[Component], curves: dict[str, Sensitivity], total: float
) -> dict[str, float]:
    """Shares of one common level, `total` together.

    Where curves are flat at that level, each gives the same part of what lies there.
    """
    low, high = _bisected(components, curves, total)
    most, least = (
        {name: _share_at(curve, level) for name, curve in curves.items()} for level in (low, high)
    )
    reached, before = total_share(components, most), total_share(components, least)
    part = (total - before) / (reached - before) if reached > before else 0.0
    return {name: least[name] + part * (most[name] - least[name]) for name in curves}


def _bisected(
    components: Sequence[Component], curves: dict[str, Sensitivity], total: float
) -> tuple[float, float]:
    """Two levels next to each other: at the first there are `total` zeros or more, at the second
    there are fewer."""
    # Below the lowest point of all curves each has all the zeros it knows of.
    low = min(min(levels) for _, levels in curves.values())
    high = max(levels[0] for _, levels in curves.values()) + 1
    for _ in range(BISECTIONS):
        level = (low + high) / 2
        shares = {name: _share_at(curve, level) for name, curve in curves.items()}
        if total_share(components, shares) >= total:
            low = level
        else:
            high = level
    return low, high


def _share_at(curve: Sensitivity, level: float) -> float:
    """The largest share at which the curve has not yet come below `level`."""
    shares, levels = curve[0], list(accumulate(curve[1], min))
    if levels[-1] >= level:
        return shares[-1]
    for i in range(len(shares) - 1, 0, -1):
        if levels[i - 1] >= level:
            part = (levels[i - 1] - level) / (levels[i - 1] - levels[i])
            return shares[i - 1] + part * (shares[i] - shares[i - 1])
    return shares[0]


def _end(curve: Sensitivity) -> float:
    return min(curve[1])
