"""Choose the next int8 units by a beam search that reads texts from the changed layer on.

Source: Divergent Token Metrics (arXiv 2311.01544, section on quantization): in each round every
kept configuration is extended by each remaining unit, and the best configurations are kept. Two
things are ours: a round adds many units at once, and it reads little; see `unit_ranking`.
"""

from collections.abc import Iterator, Sequence

from assembler.compression.layerwise import LayerwiseReader
from assembler.compression.unit_ranking import (
    Configuration,
    Losses,
    UnitRanker,
    losses,
    saved,
)
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from assembler.progress import OnMessage
from engine.compression import int8_units
from engine.compression.int8_curve import By
from engine.compression.int8_units import Target, Unit
from engine.divergence.metrics import Continuation


class UnitSearch:
    """A search on one network with texts of one length."""

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        texts: Sequence[Continuation],
        *,
        by: By,
        target: Target,
        on_progress: OnMessage,
    ) -> None:
        self._network, self._units, self._texts = network, units, texts
        self._by, self._target = by, target
        self._reader = LayerwiseReader(network, texts)
        self._floor = self._measure(())
        self._ranker = UnitRanker(
            network,
            self._reader,
            self._floor.readings,
            by=by,
            target=target,
            on_progress=on_progress,
        )

    def rounds(self, *, number: int, beam_width: int) -> Iterator[Configuration]:
        """Yield the best configuration after each of about `number` rounds, until all are int8.

        Round r of R extends each of the `beam_width` kept configurations, by at least one unit,
        until it saves the share r / R of all bytes that can be saved. A `number` far above the
        number of units adds one unit in each round, as the paper does.
        """
        total = saved(self._units)
        kept = [self._floor]
        for step in range(1, number + 1):
            if len(kept[0].units) == len(self._units):
                return
            grown = self._extend(kept, total * step / number, beam_width)
            # Two parents may lead to the same set of units.
            measured = map(self._measure, {frozenset(units): units for units in grown}.values())
            kept = sorted(measured, key=self._losses)[:beam_width]
            yield kept[0]

    def _extend(
        self, kept: Sequence[Configuration], num_bytes: float, beam_width: int
    ) -> Iterator[tuple[Unit, ...]]:
        """Yield each parent with its best remaining units, enough to save `num_bytes` together."""
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
        """Return the remaining units, the smallest loss for each saved byte first."""
        left = [unit for unit in self._units if unit not in parent.units]
        if self._by == "order" or saved([*parent.units, *left]) <= num_bytes:
            return left  # the order is given, or all of them are taken
        with as_int8(self._network, parent.modules, target=self._target):
            return self._ranker.rank(parent, left, num_bytes=num_bytes, num=beam_width)

    def _measure(self, units: tuple[Unit, ...]) -> Configuration:
        with as_int8(self._network, int8_units.modules(units), target=self._target):
            states = self._reader.states()
            readings = self._reader.read(states, layer=len(states) - 1)
        return Configuration(units, states, readings)

    def _losses(self, configuration: Configuration) -> Losses:
        """Return the losses for each saved byte."""
        total = losses(self._by, self._texts, configuration.readings, floor=self._floor.readings)
        return tuple(loss / saved(configuration.units) for loss in total)
