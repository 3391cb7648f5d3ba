"""Rank units by their loss for each saved byte, and read no more text than the ranking needs.

By FDT: an unread text can at best stay without a divergence, so the texts read so far bound a
candidate's mean FDT from above. The candidates with the best bounds read on. Once the leaders have
read all texts, no other candidate can pass them: reading everything gives the same ranking
(best-first search, as A* of Hart, Nilsson and Raphael 1968). Texts that diverge early come first,
since they separate candidates best. Perplexities, which need all logits, are computed only for
candidates with equal FDT; see `logit_bounds`.

By perplexity there is no such bound, since a perplexity may fall again. Candidates then race by
successive halving (Jamieson and Talwalkar, arXiv 1502.07943): all read a few texts, the worse half
is dropped, and the rest reads on. A dropped candidate was worse on these texts; that it is worse on
all is not certain.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from assembler.compression.layerwise import Change, LayerwiseReader, States
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from assembler.progress import OnMessage
from engine.compression import int8_units
from engine.compression.int8_curve import By
from engine.compression.int8_units import Target, Unit
from engine.divergence.metrics import Continuation, Reading, first_divergence, perplexity

# Share of the texts that a leader reads at once; shares of the texts after which a race drops its
# worse half.
STRIDE = 1 / 16
RUNGS = (0.25, 0.5)

# Compared as tuples: the first element that differs decides.
Losses = tuple[float, ...]
# By the indices of the texts.
Readings = dict[int, Reading]
Fdts = dict[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Configuration:
    """Units that are int8 together, with the states and the readings of that network."""

    units: tuple[Unit, ...]
    states: States
    readings: Sequence[Reading]

    @property
    def modules(self) -> list[str]:
        return int8_units.modules(self.units)


class UnitRanker:
    """Ranks units by how much they change the readings of a reader's texts.

    `floor` holds the readings with nothing in int8.
    """

    def __init__(
        self,
        network: Network,
        reader: LayerwiseReader,
        floor: Sequence[Reading],
        *,
        by: By,
        target: Target,
        on_progress: OnMessage,
    ) -> None:
        self._network, self._reader, self._floor = network, reader, floor
        self._by, self._target, self._on_progress = by, target, on_progress
        self._texts = reader.continuations
        self._stride = math.ceil(STRIDE * len(self._texts))

    def rank(
        self, parent: Configuration, candidates: Sequence[Unit], *, num_bytes: float, num: int
    ) -> list[Unit]:
        """Return the candidates, best first, as additions to `parent`, which the network is now.

        By FDT the order is exact for the first `num`, and for as many as save `num_bytes` together
        with the parent.
        """
        if self._by == "fdt":
            return self._best_first(parent, candidates, num_bytes, num)
        return self._race(parent, candidates, num)

    def _best_first(
        self, parent: Configuration, candidates: Sequence[Unit], num_bytes: float, num: int
    ) -> list[Unit]:
        read: dict[Unit, Fdts] = {unit: {} for unit in candidates}
        bounds = {unit: self._bound(parent, unit, {}) for unit in candidates}
        parent_fdts = _fdts(self._texts, parent.readings)
        logit_bounds = self._reader.logit_bounds(parent.states)
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
                f"{len(parent.units)} units int8; {len({*leaders} - {*unread, *tied})} of the next"
                f" {len(leaders)} are certain"
            )
            if unread:
                order = self._earliest_first([dict(enumerate(parent_fdts)), *read.values()])
                missing = {unit: [row for row in order if row not in read[unit]] for unit in unread}
                rows = {unit: texts[: self._stride] for unit, texts in missing.items()}
                fdts = self._reader.first_divergences(
                    parent.states,
                    self._changes(rows),
                    bounds=logit_bounds,
                    # Few candidates stay equal longer than their parent.
                    expected=parent_fdts,
                )
                _keep(fdts, rows, read)
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
        """Return the texts' indices by their mean FDT over the candidates that have read them."""
        fdts = {row: [r[row] for r in read if row in r] for row in range(len(self._texts))}
        return sorted(fdts, key=lambda row: np.mean(fdts[row]))

    def _bound(self, parent: Configuration, unit: Unit, read: Fdts) -> Losses:
        """Return lower bounds on the losses: unread texts do not diverge, and the perplexity is not
        bounded from below."""
        fdts = [read.get(row, len(text.tokens)) for row, text in enumerate(self._texts)]
        total = *_fdt_losses(fdts, floor=_fdts(self._texts, self._floor)), -math.inf
        return tuple(loss / saved([*parent.units, unit]) for loss in total)

    def _losses_of_all(self, parent: Configuration, units: Sequence[Unit]) -> dict[Unit, Losses]:
        """Return the losses on all texts, perplexities included; this computes all logits."""
        rows = dict.fromkeys(units, range(len(self._texts)))
        read: dict[Unit, Readings] = {unit: {} for unit in units}
        _keep(self._reader.read_changes(parent.states, self._changes(rows)), rows, read)
        return {unit: self._losses(parent, unit, read[unit]) for unit in units}

    def _losses(self, parent: Configuration, unit: Unit, readings: Readings) -> Losses:
        """Return the losses for each saved byte on the texts that were read."""
        rows = sorted(readings)
        texts, read = [self._texts[row] for row in rows], [readings[row] for row in rows]
        total = losses(self._by, texts, read, floor=[self._floor[row] for row in rows])
        return tuple(loss / saved([*parent.units, unit]) for loss in total)


def losses(
    by: By, texts: Sequence[Continuation], readings: Sequence[Reading], *, floor: Sequence[Reading]
) -> Losses:
    """Return how much worse the readings are than `floor`, those of the checkpoint itself.

    By FDT: the 75th percentile first. It is cut off at the end of the texts, so the mean FDT and
    the log ratio of perplexities decide between equals. By perplexity: the log ratio alone.
    """
    log_ratio = math.log(_perplexity(readings) / _perplexity(floor))
    if by != "fdt":
        return (log_ratio,)
    return *_fdt_losses(_fdts(texts, readings), floor=_fdts(texts, floor)), log_ratio


def saved(units: Sequence[Unit]) -> int:
    """Return the number of bytes that these units save."""
    return sum(unit.num_bytes_saved for unit in units)


def _first(
    ranking: Sequence[Unit], parent: Configuration, num_bytes: float, num: int
) -> Sequence[Unit]:
    """Return the first `num` units, and more until they save `num_bytes` with the parent."""
    while num < len(ranking) and saved([*parent.units, *ranking[:num]]) < num_bytes:
        num += 1
    return ranking[:num]


def _tied(units: Sequence[Unit], bounds: Mapping[Unit, Losses]) -> list[Unit]:
    """Return the units whose FDT losses equal another's, and whose perplexity is not known yet."""
    counts = Counter(bound[:-1] for bound in bounds.values())
    return [u for u in units if bounds[u][-1] == -math.inf and counts[bounds[u][:-1]] > 1]


def _keep(
    results: Sequence[Sequence[T]],
    rows: Mapping[Unit, Sequence[int]],
    read: Mapping[Unit, dict[int, T]],
) -> None:
    """Add the results of these texts to `read`, under the texts' indices."""
    for (unit, indices), new in zip(rows.items(), results, strict=True):
        read[unit].update(zip(indices, new, strict=True))


def _fdt_losses(fdts: Sequence[int], *, floor: Sequence[int]) -> tuple[float, float]:
    """Return the losses of the 75th percentile and of the mean, in tokens."""
    p75 = float(np.percentile(floor, 75) - np.percentile(fdts, 75))
    return p75, float(np.mean(floor) - np.mean(fdts))


def _fdts(texts: Sequence[Continuation], readings: Sequence[Reading]) -> list[int]:
    return [
        first_divergence(text.tokens, reading.predicted)
        for text, reading in zip(texts, readings, strict=True)
    ]


def _perplexity(readings: Sequence[Reading]) -> float:
    return perplexity([logprob for reading in readings for logprob in reading.logprobs])
