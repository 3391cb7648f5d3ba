"""Which units become int8 next: a beam search that reads from the changed layer on, and races.

Source: Divergent Token Metrics (arXiv 2311.01544, on quantisation): in each round every
configuration grows by each unit that is left, and the best are kept. Ours is what a round costs: a
candidate is read from the layer of its new unit on, and candidates race by successive halving
(Jamieson and Talwalkar, arXiv 1502.07943): all read a few prefixes, the worse half is dropped, the
rest reads on. As all read the same prefixes, what sets them apart is not the luck of the text. What
is dropped are those that are worse on these, not those that certainly are: a bound of confidence
would drop next to nothing, as FDT is cut off at the end of the texts and mostly lies there.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from assembler.layerwise import LayerwiseReader, States
from assembler.network import Network
from assembler.quantisation import as_int8
from engine import compression
from engine.compression import Target, Unit
from engine.compression_curve import By
from engine.divergence.aggregates import Summary, summarise
from engine.divergence.metrics import Continuation, Reading

# Shares of the texts after which the worse half is dropped; the rest reads all.
RUNGS = (0.25, 0.5)

# The first that differs decides.
Losses = tuple[float, ...]
OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Configuration:
    """Units that are int8 together, with what enters each layer then, and what is said."""

    units: tuple[Unit, ...]
    states: States
    readings: Sequence[Reading]

    @property
    def modules(self) -> list[str]:
        return compression.modules(self.units)


class UnitSearch:
    """Rounds of a search on one network and some texts, all of one length."""

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        texts: Sequence[Continuation],
        *,
        by: By,
        target: Target,
        on_progress: OnProgress,
    ) -> None:
        self._network, self._units, self._texts = network, units, texts
        self._by, self._target = by, target
        self._reader = LayerwiseReader(network, texts)
        self._on_progress = on_progress
        self._floor = self._measured(())

    def rounds(self, *, number: int, beam_width: int) -> Iterator[Configuration]:
        """The best configuration after each of about `number` rounds, until all units are int8.

        In a round each of the `beam_width` that are kept grows until the share of what can be saved
        is saved that the round stands for, by one unit at least. A `number` far above that of the
        units adds them one by one, as the paper does.
        """
        total = saved(self._units)
        kept = [self._floor]
        for step in range(1, number + 1):
            if len(kept[0].units) == len(self._units):
                return
            grown = self._grown(kept, total * step / number, beam_width)
            # The same units may be reached from two parents.
            measured = map(self._measured, {frozenset(units): units for units in grown}.values())
            kept = sorted(measured, key=lambda c: self._losses(c.units, c.readings))[:beam_width]
            yield kept[0]

    def _grown(
        self, kept: Sequence[Configuration], num_bytes: float, beam_width: int
    ) -> Iterator[tuple[Unit, ...]]:
        """Each parent with the best units that are left, as many as save `num_bytes` together."""
        for parent in kept:
            ranking = self._ranking(parent, num_bytes, beam_width)
            for leader in ranking[:beam_width]:
                units = [*parent.units, leader]
                for unit in ranking:
                    if saved(units) >= num_bytes:
                        break
                    if unit is not leader:
                        units.append(unit)
                yield tuple(units)

    def _ranking(self, parent: Configuration, num_bytes: float, beam_width: int) -> list[Unit]:
        """The units that are left, the one that costs least for each byte saved first."""
        left = [unit for unit in self._units if unit not in parent.units]
        if self._by == "order" or saved([*parent.units, *left]) <= num_bytes:
            return left  # nothing is asked of them, or all of them are taken
        with as_int8(self._network, parent.modules, target=self._target):
            return self._race(parent, left, beam_width)

    def _race(self, parent: Configuration, left: list[Unit], beam_width: int) -> list[Unit]:
        readings: dict[Unit, list[Reading]] = {unit: [] for unit in left}
        racing, dropped = left, list[Unit]()
        for rung in (*RUNGS, 1.0):
            end = math.ceil(rung * len(self._texts))
            for number, unit in enumerate(racing, start=1):
                self._on_progress(
                    f"{len(parent.units)} of {len(self._units)} units int8; candidate {number} of"
                    f" {len(racing)}, {end} texts"
                )
                rows = slice(len(readings[unit]), end)
                with as_int8(self._network, unit.modules, target=self._target):
                    readings[unit] += self._reader.read(parent.states, layer=unit.layer, rows=rows)
            racing = sorted(
                racing, key=lambda unit: self._losses([*parent.units, unit], readings[unit])
            )
            num_kept = len(racing) if rung == 1 else max(beam_width, math.ceil(len(racing) / 2))
            racing, dropped = racing[:num_kept], racing[num_kept:] + dropped
        return [*racing, *dropped]

    def _measured(self, units: tuple[Unit, ...]) -> Configuration:
        with as_int8(self._network, compression.modules(units), target=self._target):
            states = self._reader.states()
            readings = self._reader.read(states, layer=len(states) - 1)
        return Configuration(units, states, readings)

    def _losses(self, units: Sequence[Unit], readings: Sequence[Reading]) -> Losses:
        """For each byte saved, on the first of the texts: as many as were read."""
        texts = self._texts[: len(readings)]
        floor = summarise(texts, self._floor.readings[: len(readings)])
        worse = losses(self._by, summarise(texts, readings), floor=floor)
        return tuple(loss / saved(units) for loss in worse)


def losses(by: By, own: Summary, *, floor: Summary) -> Losses:
    """What is worse than in the checkpoint itself; of FDT also what its 75th percentile, which is
    cut off at the end of the texts, does not tell."""
    log_ratio = math.log(own.perplexity / floor.perplexity)
    if by != "fdt":
        return (log_ratio,)
    return floor.fdt.p75 - own.fdt.p75, floor.fdt.mean - own.fdt.mean, log_ratio


def saved(units: Sequence[Unit]) -> int:
    """Bytes."""
    return sum(unit.num_bytes_saved for unit in units)
