"""Search int8 units of one checkpoint, and judge the choices on other texts."""

import time
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import cycle, islice, pairwise
from typing import Any

import torch

from assembler.compression.probe import MIN_WINDOWS, Probe
from assembler.compression.smoothquant import smooth
from assembler.compression.unit_ranking import losses, saved
from assembler.compression.unit_search import UnitSearch
from assembler.network import network_runner
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.int8_curve import By
from engine.compression.int8_units import Target, Unit
from engine.compression.measures import ProbeSize
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation, compare
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.tensor_names import WEIGHT
from tests.benchmarks.compression.subjects import Subject
from tests.benchmarks.harness import reports


class Trial:
    """A checkpoint, with texts to choose on and to judge on, which are loaded when needed."""

    def __init__(
        self,
        subject: Subject,
        target: Target,
        choosing: ProbeSize,
        judging: ProbeSize,
        blobs: BlobStore,
    ) -> None:
        self.subject, self._target, self._blobs = subject, target, blobs
        self._choosing, self._judging = choosing, judging
        self._manifest = subject.manifest
        self.units = int8_units.units(subject.manifest, target)

    @property
    def choosing_key(self) -> list[Any]:
        """Everything that a choice depends on, as a JSON value."""
        return [self._manifest.digest, self._target, self._choosing.model_dump()]

    @property
    def judging_key(self) -> list[Any]:
        """Everything but the units that a judgment depends on, as a JSON value."""
        return [*self.choosing_key, self._judging.model_dump()]

    @cached_property
    def _chooser(self) -> Probe:
        return self._probe(self.subject.choosing, self._choosing)

    @cached_property
    def _judge(self) -> Probe:
        return self._probe(self.subject.judging, self._judging)

    def _probe(self, documents: Sequence[Sequence[Document]], texts: ProbeSize) -> Probe:
        return Probe(self._manifest, documents, texts, blobs=self._blobs, on_progress=reports.say)

    @cached_property
    def _network(self) -> Network:
        """The network, smoothed on the texts to choose on."""
        network, chooser = self._judge.network, self._chooser
        runner = network_runner.runner(network)
        smooth(
            network,
            self.units,
            target=self._target,
            read=lambda: runner.read([*chooser.texts, *chooser.corpus]),
        )
        return network

    @property
    def _corpus(self) -> list[Continuation]:
        """Text for perplexity, with about as many tokens as the greedy texts have."""
        texts, corpus = self._chooser.texts, self._chooser.corpus
        num_tokens = len(texts) * len(texts[0].prefix + texts[0].tokens)
        return corpus[: max(MIN_WINDOWS, num_tokens // len(corpus[0].prefix + corpus[0].tokens))]

    def choices(self, by: By, *, num_rounds: int, beam_width: int) -> list[dict[str, Any]]:
        """Return the units chosen by the end of each round, and its CPU seconds.

        The last round is left out, since everything is int8 after it.
        """
        rounds = self._search(by).rounds(number=num_rounds, beam_width=beam_width)
        choices = []
        started = time.process_time()
        for configuration in islice(rounds, num_rounds - 1):
            seconds = round(time.process_time() - started, 1)
            reports.say(f"{by}: {len(configuration.units)} units in {seconds} CPU seconds")
            choices.append({"units": _names(configuration.units), "cpu_seconds": seconds})
            started = time.process_time()
        return choices

    def judge(self, names: Collection[str], *, smoothed: bool = True) -> dict[str, Any]:
        """Judge the checkpoint with these units in int8, on the texts to judge on."""
        units = [unit for unit in self.units if unit.name in names]
        network = (
            self._network
            if smoothed
            else Network.from_manifest(self._manifest, self._blobs, dtype=torch.float32)
        )
        modules = int8_units.modules(units)
        texts, corpus = self._judge.texts, self._judge.corpus
        runner = network_runner.runner(network)
        with as_int8(network, modules, target=self._target):
            readings, held_out = runner.read(texts), summarize(corpus, runner.read(corpus))
        summary = summarize(texts, readings)
        num_int8 = sum(self._manifest.tensors[name + WEIGHT].num_numbers for name in modules)
        reports.say(f"{len(units)} units: mean FDT {summary.fdt.mean:.2f}")
        return {
            "num_bytes": int8_units.num_bytes(self._manifest, units),
            "int8_share": round(num_int8 / self._manifest.architecture.num_parameters, 4),
            "fdts": [compare(t, r).fdt for t, r in zip(texts, readings, strict=True)],
            "fdt_75": summary.fdt.p75,
            "fdt_mean": round(summary.fdt.mean, 3),
            "fdt_mean_interval": summary.fdt.interval
            and [round(x, 2) for x in summary.fdt.interval],
            "equal_share": round(summary.equal_share, 4),
            "dppl": round(summary.perplexity, 4),
            "perplexity": round(held_out.perplexity, 4),
        }

    def cost(self, *, num_rounds: int) -> dict[str, Any]:
        """Measure the CPU seconds of a search by FDT, and of one that reads all texts.

        Their rounds take turns. The units that each has chosen by the end of each round are
        returned too.
        """
        ends, chosen = [time.process_time()], []
        rounds = self._search("fdt").rounds(number=num_rounds, beam_width=1)
        ours = (configuration.units for configuration in islice(rounds, num_rounds - 1))
        theirs = self._reading_whole(num_rounds)
        for search in cycle((ours, theirs)):
            units = next(search, None)
            if units is None:
                break
            chosen.append(_names(units))
            ends.append(time.process_time())
        seconds = [after - before for before, after in pairwise(ends)]
        partial, whole = sum(seconds[::2]), sum(seconds[1::2])
        return {
            "num_rounds": num_rounds,
            "cpu_seconds": round(partial, 1),
            "cpu_seconds_reading_whole": round(whole, 1),
            "ratio": round(partial / whole, 3),
            "chosen": chosen[::2],
            "chosen_reading_whole": chosen[1::2],
        }

    def chosen_in_other_batches(self, *, num_rounds: int) -> list[list[str]]:
        """Search by reading all texts for every candidate, one text at a time.

        In other batches the last digits of float32 sums differ, and int8 may round them to other
        integers.
        """
        return list(map(_names, self._reading_whole(num_rounds, batch_tokens=1)))

    def share_of_bytes(self, chosen: Sequence[str], others: Sequence[str]) -> float:
        """Return the share of the bytes saved by `others` that comes from units in `chosen`."""
        sizes = {unit.name: unit.num_bytes_saved for unit in self.units}
        both = sum(sizes[name] for name in others if name in chosen)
        return round(both / sum(map(sizes.__getitem__, others)), 3)

    def _reading_whole(
        self, num_rounds: int, *, batch_tokens: int | None = None
    ) -> Iterator[tuple[Unit, ...]]:
        """Yield the units chosen by each round of a greedy search without bounds and states."""
        texts = self._chooser.texts
        runner = network_runner.runner(self._network, batch_tokens=batch_tokens)
        floor = runner.read(texts)
        chosen: list[Unit] = []
        for step in range(1, num_rounds):
            worse = {}
            with as_int8(self._network, int8_units.modules(chosen), target=self._target):
                for unit in self.units:
                    if unit not in chosen:
                        with as_int8(self._network, unit.modules, target=self._target):
                            unit_losses = losses("fdt", texts, runner.read(texts), floor=floor)
                        worse[unit] = [loss / saved([*chosen, unit]) for loss in unit_losses]
            if not worse:
                return
            best, *ranking = sorted(worse, key=worse.__getitem__)
            chosen.append(best)
            for unit in ranking:
                if saved(chosen) < saved(self.units) * step / num_rounds:
                    chosen.append(unit)
            yield tuple(chosen)

    def _search(self, by: By) -> UnitSearch:
        return UnitSearch(
            self._network,
            self.units,
            self._corpus if by == "perplexity" else self._chooser.texts,
            by=by,
            target=self._target,
            on_progress=lambda _: None,
        )


def _names(units: Sequence[Unit]) -> list[str]:
    return [unit.name for unit in units]
