"""Which units cost least for each byte that they save, read no further than that takes.

By FDT: a text that a candidate has not read yet can at best stay whole, so what it has read bounds
its FDT from above. Those who lead by their bounds read on, and once the leaders have read
everything nobody can pass them any more: they are those that reading everything would give, in the
same order (best-first search, as A* of Hart, Nilsson and Raphael 1968). First come the texts that
diverge early, which tell most. Only of equals are perplexities asked, for which every word of the
vocabulary is multiplied; see `contenders`.

Perplexities have no such bound, as they may fall again. There candidates race by successive halving
(Jamieson and Talwalkar, arXiv 1502.07943): all read a few texts, the worse half is dropped, the
rest reads on. What is dropped are those that are worse on these, not those that certainly are.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from assembler.compression.layerwise import Change, LayerwiseReader, States
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.int8_curve import By
from engine.compression.int8_units import Target, Unit
from engine.divergence.metrics import Continuation, Reading, first_divergence, perplexity

# Shares of the texts that a leader reads at once, and after which the worse half of a race is
# dropped; the rest reads all.
STRIDE = 1 / 16
RUNGS = (0.25, 0.5)

# The first that differs decides.
Losses = tuple[float, ...]
# By the numbers of the texts.
Readings = dict[int, Reading]
Fdts = dict[int, int]
T = TypeVar("T")
OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Configuration:
    """Units that are int8 together, with what enters each layer then, and what is said."""

    units: tuple[Unit, ...]
    states: States
    readings: Sequence[Reading]

    @property
    def modules(self) -> list[str]:
        return int8_units.modules(self.units)


class UnitRanker:
    """Ranks units by what the texts of a reader suffer; `floor` is what is said with nothing in
    int8."""

    def __init__(
        self,
        network: Network,
        reader: LayerwiseReader,
        floor: Sequence[Reading],
        *,
        by: By,
        target: Target,
        on_progress: OnProgress,
    ) -> None:
        self._network, self._reader, self._floor = network, reader, floor
        self._by, self._target, self._on_progress = by, target, on_progress
        self._texts = reader.continuations
        self._stride = math.ceil(STRIDE * len(self._texts))

    def rank(
        self, parent: Configuration, candidates: Sequence[Unit], *, num_bytes: float, num: int
    ) -> list[Unit]:
        """What may be added to a parent, which the network is now, best first: by FDT certainly so
        for the first `num`, and for as many as save `num_bytes` together with the parent."""
        if self._by == "fdt":
            return self._best_first(parent, candidates, num_bytes, num)
        return self._race(parent, candidates, num)

    def _best_first(
        self, parent: Configuration, candidates: Sequence[Unit], num_bytes: float, num: int
    ) -> list[Unit]:
        read: dict[Unit, Fdts] = {unit: {} for unit in candidates}
        bounds = {unit: self._bound(parent, unit, {}) for unit in candidates}
        parent_fdts = _fdts(self._texts, parent.readings)
        contenders = self._reader.contenders(parent.states)
        while True:
            ranking = sorted(bounds, key=bounds.__getitem__)
            leaders = _first(ranking, parent, num_bytes, num)
            unread = [
                unit
                for unit in ranking
                if len(read[unit]) < len(self._texts) and bounds[unit] <= bounds[leaders[-1]]
            ]
            tied = _tied(leaders, bounds)
            self._on_progress(
                f"{len(parent.units)} units int8; of the {len(leaders)} to come next"
                f" {len({*leaders} - {*unread, *tied})} are certain"
            )
            if unread:
                order = self._earliest_first([dict(enumerate(parent_fdts)), *read.values()])
                missing = {unit: [row for row in order if row not in read[unit]] for unit in unread}
                rows = {unit: own[: self._stride] for unit, own in missing.items()}
                told = self._reader.first_divergences(
                    parent.states,
                    self._changes(rows),
                    contenders=contenders,
                    # Few get further than what they grow from.
                    expected=parent_fdts,
                )
                _keep(told, rows, read)
                bounds |= {unit: self._bound(parent, unit, read[unit]) for unit in unread}
            elif tied:
                bounds |= self._losses_of_all(parent, tied)
            else:
                return ranking

    def _race(self, parent: Configuration, candidates: Sequence[Unit], num: int) -> list[Unit]:
        read: dict[Unit, Readings] = {unit: {} for unit in candidates}
        racing, dropped = list(candidates), list[Unit]()
        for rung in (*RUNGS, 1.0):
            end = math.ceil(rung * len(self._texts))
            self._on_progress(
                f"{len(parent.units)} units int8; {len(racing)} candidates, {end} texts"
            )
            rows = {unit: range(len(read[unit]), end) for unit in racing}
            _keep(self._reader.read_changes(parent.states, self._changes(rows)), rows, read)
            racing = sorted(racing, key=lambda unit: self._losses(parent, unit, read[unit]))
            num_kept = len(racing) if rung == 1 else max(num, math.ceil(len(racing) / 2))
            racing, dropped = racing[:num_kept], racing[num_kept:] + dropped
        return [*racing, *dropped]

    def _changes(self, rows: Mapping[Unit, Sequence[int]]) -> list[Change]:
        """Each unit in int8, for these texts."""
        return [
            Change(
                layer=unit.layer,
                applied=partial(as_int8, self._network, unit.modules, target=self._target),
                rows=own,
            )
            for unit, own in rows.items()
        ]

    def _earliest_first(self, read: Sequence[Fdts]) -> list[int]:
        """The texts by the mean FDT of those who have read them."""
        fdts = {row: [own[row] for own in read if row in own] for row in range(len(self._texts))}
        return sorted(fdts, key=lambda row: np.mean(fdts[row]))

    def _bound(self, parent: Configuration, unit: Unit, read: Fdts) -> Losses:
        """The least that the losses can be: what was not read stays whole, and no perplexity is too
        low."""
        fdts = [read.get(row, len(text.tokens)) for row, text in enumerate(self._texts)]
        worse = *_fdt_losses(fdts, floor=_fdts(self._texts, self._floor)), -math.inf
        return tuple(loss / saved([*parent.units, unit]) for loss in worse)

    def _losses_of_all(self, parent: Configuration, units: Sequence[Unit]) -> dict[Unit, Losses]:
        """On all texts, perplexities too, for which all words of the vocabulary are asked."""
        rows = dict.fromkeys(units, range(len(self._texts)))
        read: dict[Unit, Readings] = {unit: {} for unit in units}
        _keep(self._reader.read_changes(parent.states, self._changes(rows)), rows, read)
        return {unit: self._losses(parent, unit, read[unit]) for unit in units}

    def _losses(self, parent: Configuration, unit: Unit, readings: Readings) -> Losses:
        """For each byte saved, on the texts that were read."""
        rows = sorted(readings)
        texts, own = [self._texts[row] for row in rows], [readings[row] for row in rows]
        worse = losses(self._by, texts, own, floor=[self._floor[row] for row in rows])
        return tuple(loss / saved([*parent.units, unit]) for loss in worse)


def losses(
    by: By, texts: Sequence[Continuation], own: Sequence[Reading], *, floor: Sequence[Reading]
) -> Losses:
    """What is worse than in the checkpoint itself; of FDT also what its 75th percentile, which is
    cut off at the end of the texts, does not tell."""
    log_ratio = math.log(_perplexity(own) / _perplexity(floor))
    if by != "fdt":
        return (log_ratio,)
    return *_fdt_losses(_fdts(texts, own), floor=_fdts(texts, floor)), log_ratio


def saved(units: Sequence[Unit]) -> int:
    """Bytes."""
    return sum(unit.num_bytes_saved for unit in units)


def _first(
    ranking: Sequence[Unit], parent: Configuration, num_bytes: float, num: int
) -> Sequence[Unit]:
    """The first `num`, and as many more as save `num_bytes` together with the parent."""
    while num < len(ranking) and saved([*parent.units, *ranking[:num]]) < num_bytes:
        num += 1
    return ranking[:num]


def _tied(units: Sequence[Unit], bounds: Mapping[Unit, Losses]) -> list[Unit]:
    """Those that only a perplexity which is not known yet tells from another."""
    counts = Counter(bound[:-1] for bound in bounds.values())
    return [u for u in units if bounds[u][-1] == -math.inf and counts[bounds[u][:-1]] > 1]


def _keep(
    told: Sequence[Sequence[T]],
    rows: Mapping[Unit, Sequence[int]],
    read: Mapping[Unit, dict[int, T]],
) -> None:
    """What was told of these texts, under their numbers."""
    for (unit, own), new in zip(rows.items(), told, strict=True):
        read[unit].update(zip(own, new, strict=True))


def _fdt_losses(own: Sequence[int], *, floor: Sequence[int]) -> tuple[float, float]:
    """Of the 75th percentile, and of the mean."""
    p75 = float(np.percentile(floor, 75) - np.percentile(own, 75))
    return p75, float(np.mean(floor) - np.mean(own))


def _fdts(texts: Sequence[Continuation], readings: Sequence[Reading]) -> list[int]:
    return [
        first_divergence(text.tokens, reading.predicted)
        for text, reading in zip(texts, readings, strict=True)
    ]


def _perplexity(readings: Sequence[Reading]) -> float:
    return perplexity([logprob for reading in readings for logprob in reading.logprobs])
