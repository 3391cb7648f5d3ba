"""int8 unit by unit, on the seed, an expert and a mix: what a search costs, and what it finds.

Units are chosen on prefixes of every other held-out document and judged on the rest. `curves`: at
about equal sizes, how far the checkpoint strays when FDT, DPPL or perplexity chose, or nothing,
which is the order of the network. `cost` is that of the first round: as the product does it, and by
reading every candidate whole. A mix on a CPU keeps its routed experts as they are; for a GPU they
may be int8 too, which is computed here as that would compute it.
"""

import sys
import time
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any, get_args

import torch

from assembler import evaluate
from assembler.network import Network
from assembler.quantisation import as_int8
from assembler.unit_search import UnitSearch, losses, saved
from assembler.yardstick import MIN_WINDOWS, Yardstick
from engine import compression
from engine.compression import Target, Unit
from engine.compression_curve import By
from engine.divergence.aggregates import summarise
from engine.divergence.metrics import Continuation
from engine.measures import Texts
from registry.blobs import BlobStore
from registry.documents import Document
from registry.quantisation import WEIGHT
from service.bars import Bar
from tests.benchmarks import demo_mix, reports, subjects
from tests.benchmarks.kept import once
from tests.benchmarks.subjects import KINDS, Subject

NAME = "compression"
PACKAGES = ("nexusmix", "torch")
# Raise it when what is kept of an earlier run no longer holds.
VERSION = 1
# A dense checkpoint has the same units for both.
TARGETS: tuple[Target, ...] = ("cpu", "gpu")
PREFIX_TOKENS = 16
MAX_COST = 1 / 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME, "int8 by divergent tokens: what a search costs and finds; can be interrupted"
    )
    parser.add_argument("--subjects", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=12, help="that units are chosen on")
    parser.add_argument("--completion-tokens", type=int, default=32)
    parser.add_argument("--judging-prompts", type=int, default=48)
    parser.add_argument("--judging-tokens", type=int, default=96, help="of each continuation")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.rounds, chosen.prompts, chosen.judging_prompts = 2, 4, 4
    torch.set_num_threads(1)
    demo = demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m()
    choosing = Texts(
        prompts=chosen.prompts,
        prefix_tokens=PREFIX_TOKENS,
        completion_tokens=chosen.completion_tokens,
    )
    judging = Texts(
        prompts=chosen.judging_prompts,
        prefix_tokens=PREFIX_TOKENS,
        completion_tokens=chosen.judging_tokens,
    )
    found = {}
    for subject in subjects.of(demo, chosen.subjects):
        for target in TARGETS if subject.manifest.architecture.num_experts else TARGETS[:1]:
            bench = _Bench(subject, target, choosing, judging, chosen.rounds, demo.blobs)
            found[f"{subject.name}, {target}"] = bench.measure()
    figures = {
        "threads": torch.get_num_threads(),
        "choosing": choosing.model_dump(),
        "judging": judging.model_dump(),
        "subjects": found,
    }
    bars = [
        Bar(f"{name}: CPU time over reading every candidate whole", ratio, "<=", MAX_COST)
        for name, ratio in ((name, own["cost"]["ratio"]) for name, own in found.items())
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


class _Bench:
    """A checkpoint, texts to choose on and texts to judge on, in memory once they are asked for."""

    def __init__(
        self,
        subject: Subject,
        target: Target,
        choosing: Texts,
        judging: Texts,
        num_rounds: int,
        blobs: BlobStore,
    ) -> None:
        self._subject, self._target, self._num_rounds = subject, target, num_rounds
        self._choosing, self._judging, self._blobs = choosing, judging, blobs
        self._manifest = subject.manifest
        self.units = compression.units(subject.manifest, target)

    def measure(self) -> dict[str, Any]:
        """All figures; those of a run before are found."""
        texts = [own.model_dump() for own in (self._choosing, self._judging)]
        key = [VERSION, self._manifest.digest, self._target, *texts]
        searching = [*key, self._num_rounds]
        return {
            "domains": list(self._subject.documents),
            "num_units": len(self.units),
            "num_parameters": self._manifest.architecture.num_parameters,
            "ends": once(NAME, key, self.ends),
            "curves": {
                by: once(NAME, [*searching, by], partial(self.curve, by)) for by in get_args(By)
            },
            "cost": once(NAME, [*searching, "cost"], self.cost),
        }

    @cached_property
    def _chooser(self) -> Yardstick:
        return self._yardstick(self._subject.choosing, self._choosing)

    @cached_property
    def _judge(self) -> Yardstick:
        return self._yardstick(self._subject.judging, self._judging)

    def _yardstick(self, documents: Sequence[Sequence[Document]], texts: Texts) -> Yardstick:
        return Yardstick(
            self._manifest, documents, texts, blobs=self._blobs, on_progress=reports.say
        )

    @property
    def _network(self) -> Network:
        return self._judge.network

    @property
    def _corpus(self) -> list[Continuation]:
        """About as many tokens as the other texts have."""
        texts, corpus = self._chooser.texts, self._chooser.corpus
        num_tokens = len(texts) * len(texts[0].prefix + texts[0].tokens)
        return corpus[: max(MIN_WINDOWS, num_tokens // len(corpus[0].prefix + corpus[0].tokens))]

    def ends(self) -> dict[str, Any]:
        return {"none": self.judge(()), "all": self.judge(self.units)}

    def curve(self, by: By) -> list[dict[str, Any]]:
        """What was chosen by `by`, but for the end, where everything is int8."""
        rounds = self._search(by).rounds(number=self._num_rounds, beam_width=1)
        points = []
        started = time.process_time()
        for found in islice(rounds, self._num_rounds - 1):
            seconds = time.process_time() - started
            point = self.judge(found.units) | {"cpu_seconds": round(seconds, 1)}
            reports.say(f"{by}: {point}")
            points.append(point | {"units": [unit.name for unit in found.units]})
            started = time.process_time()
        return points

    def judge(self, units: Sequence[Unit]) -> dict[str, Any]:
        """On the texts of the judge, with an interval of the mean over prefixes."""
        modules = [module for unit in units for module in unit.modules]
        texts, corpus = self._judge.texts, self._judge.corpus
        runner = evaluate.runner(self._network)
        with as_int8(self._network, modules, target=self._target):
            own, told = (summarise(t, runner.read(t)) for t in (texts, corpus))
        num_int8 = sum(self._manifest.tensors[name + WEIGHT].num_numbers for name in modules)
        return {
            "num_bytes": compression.num_bytes(self._manifest, units),
            "int8_share": round(num_int8 / self._manifest.architecture.num_parameters, 4),
            "fdt_75": own.fdt.p75,
            "fdt_mean": round(own.fdt.mean, 3),
            "fdt_mean_interval": own.fdt.interval and [round(x, 2) for x in own.fdt.interval],
            "equal_share": round(own.equal_share, 4),
            "dppl": round(own.perplexity, 4),
            "perplexity": round(told.perplexity, 4),
        }

    def cost(self) -> dict[str, Any]:
        """CPU seconds of the first round by FDT, both ways, and whether they choose alike."""
        texts = self._chooser.texts
        started = time.process_time()
        ours = next(self._search("fdt").rounds(number=self._num_rounds, beam_width=1)).units
        seconds = time.process_time() - started
        started = time.process_time()
        floor = summarise(texts, evaluate.runner(self._network).read(texts))
        worse = {}
        for unit in self.units:
            with as_int8(self._network, unit.modules, target=self._target):
                own = summarise(texts, evaluate.runner(self._network).read(texts))
            worse[unit] = [x / saved([unit]) for x in losses("fdt", own, floor=floor)]
        whole_seconds = time.process_time() - started
        ranking = sorted(self.units, key=worse.__getitem__)
        wanted = saved(self.units) / self._num_rounds
        theirs = [u for i, u in enumerate(ranking) if saved(ranking[:i]) < wanted]
        both = saved([unit for unit in ours if unit in theirs])
        return {
            "cpu_seconds": round(seconds, 1),
            "cpu_seconds_reading_whole": round(whole_seconds, 1),
            "ratio": round(seconds / whole_seconds, 3),
            "same_best": ours[0] == ranking[0],
            "share_of_bytes_chosen_by_both": round(both / saved(theirs), 3),
            "judged": self.judge(ours),
            "judged_reading_whole": self.judge(theirs),
        }

    def _search(self, by: By) -> UnitSearch:
        return UnitSearch(
            self._network,
            self.units,
            self._corpus if by == "perplexity" else self._chooser.texts,
            by=by,
            target=self._target,
            on_progress=lambda _: None,
        )


if __name__ == "__main__":
    sys.exit(main())
