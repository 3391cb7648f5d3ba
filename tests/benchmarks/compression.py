"""SmolLM2-135M in int8, unit by unit: what a search costs, and what it finds.

Units are chosen on prefixes of training documents, none of which the model was trained on here, and
judged on held-out ones. `cost` is that of the first round: as the product does it, and by reading
every candidate whole. `curves`: at about equal sizes, how far the checkpoint strays when FDT, DPPL
or perplexity chose, or nothing, which is the order of the network.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch

from assembler import evaluate
from assembler import seed as seeds
from assembler.compression import Compressor
from assembler.corpora.domains import PROJECTION_DOMAINS, fetch
from assembler.network import Network
from assembler.quantisation import as_int8
from assembler.unit_search import UnitSearch, losses, saved
from assembler.yardstick import MIN_WINDOWS
from engine.compression import Unit
from engine.compression_curve import By, Compression, Point
from engine.divergence.aggregates import summarise
from engine.divergence.metrics import Continuation
from registry.blobs import LocalBlobs
from registry.checkpoint_folder import CheckpointFolder
from registry.documents import Document, parse
from registry.manifests import Manifest
from service.bars import Bar
from service.demo_family import DOCUMENTS_PER_DOMAIN
from tests.benchmarks import reports

NAME = "compression"
PACKAGES = ("nexusmix", "torch")
DOMAINS = tuple(domain for domain in PROJECTION_DOMAINS if domain.name in ("essays", "python"))
MAX_COST = 1 / 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "int8 by divergent tokens: what a search costs and finds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=8, help="that units are chosen on")
    parser.add_argument("--completion-tokens", type=int, default=32)
    parser.add_argument("--judging-prompts", type=int, default=16)
    parser.add_argument("--judging-tokens", type=int, default=96, help="of each continuation")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.rounds, chosen.prompts, chosen.judging_prompts = 1, 4, 4
    shared = {"min_fdt_75": 0, "prefix_tokens": 16}
    asked = Compression(
        prompts=chosen.prompts, completion_tokens=chosen.completion_tokens, **shared
    )
    judging = Compression(
        prompts=chosen.judging_prompts, completion_tokens=chosen.judging_tokens, **shared
    )
    with TemporaryDirectory(prefix="nexusmix-compression-") as folder:
        blobs = LocalBlobs(Path(folder))
        manifest = CheckpointFolder.read(seeds.seed_folder()).keep(blobs)
        bench = _Bench(manifest, asked, judging, blobs, num_rounds=chosen.rounds)
        ends = {"none": bench.judge(()), "all": bench.judge(bench.units)}
        curves = {by: bench.curve(by) for by in get_args(By)}
        cost = bench.cost()
    figures = {
        "model": seeds.NAME,
        "texts": [domain.name for domain in DOMAINS],
        "threads": torch.get_num_threads(),
        "num_units": len(bench.units),
        "target": asked.target,
        "choosing": _texts(bench.chooser.yardstick.texts),
        "judging": _texts(bench.judge_.yardstick.texts),
        "ends": ends,
        "curves": curves,
        "cost": cost,
    }
    bars = [
        Bar("CPU time over that of reading every candidate whole", cost["ratio"], "<=", MAX_COST)
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


class _Bench:
    """The checkpoint, texts to choose on and texts to judge on."""

    def __init__(
        self,
        manifest: Manifest,
        asked: Compression,
        judging: Compression,
        blobs: LocalBlobs,
        *,
        num_rounds: int,
    ) -> None:
        paths = fetch(DOMAINS, limit=DOCUMENTS_PER_DOMAIN, on_progress=reports.say)
        read = [parse([path.read_bytes()]) for path in paths.values()]
        self.chooser = Compressor(
            manifest, [_training(own) for own in read], asked, blobs=blobs, on_progress=reports.say
        )
        self.judge_ = Compressor(manifest, read, judging, blobs=blobs, on_progress=reports.say)
        self.units, self._num_rounds, self._target = self.chooser.units, num_rounds, asked.target
        self._network = Network.from_manifest(manifest, blobs, dtype=torch.float32)

    @property
    def _corpus(self) -> list[Continuation]:
        """About as many tokens as the other texts have."""
        texts, corpus = self.chooser.yardstick.texts, self.chooser.yardstick.corpus
        num_tokens = len(texts) * len(texts[0].prefix + texts[0].tokens)
        return corpus[: max(MIN_WINDOWS, num_tokens // len(corpus[0].prefix + corpus[0].tokens))]

    def curve(self, by: By) -> list[dict[str, Any]]:
        """What was chosen by `by`, but for the end, where everything is int8."""
        rounds = self._search(by).rounds(number=self._num_rounds, beam_width=1)
        points = []
        started = time.process_time()
        for found in rounds:
            if len(found.units) < len(self.units):
                seconds = time.process_time() - started
                points.append(self.judge(found.units) | {"cpu_seconds": round(seconds, 1)})
                reports.say(f"{by}: {points[-1]}")
            started = time.process_time()
        return points

    def judge(self, units: Sequence[Unit]) -> dict[str, Any]:
        point: Point = self.judge_.point(units)
        told = point.model_dump(mode="json", exclude={"units"})
        return {name: round(value, 4) for name, value in told.items()} | {
            "units": list(point.units) if 0 < len(units) < len(self.units) else len(units)
        }

    def cost(self) -> dict[str, Any]:
        """CPU seconds of the first round by FDT, both ways, and whether they choose alike."""
        texts = self.chooser.yardstick.texts
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
            self._corpus if by == "perplexity" else self.chooser.yardstick.texts,
            by=by,
            target=self._target,
            on_progress=lambda _: None,
        )


def _training(documents: Sequence[Document]) -> list[Document]:
    return [replace(d, split="held-out") for d in documents if d.split == "train"]


def _texts(texts: Sequence[Continuation]) -> dict[str, int]:
    return {
        "prompts": len(texts),
        "prefix_tokens": len(texts[0].prefix),
        "completion_tokens": len(texts[0].tokens),
    }


if __name__ == "__main__":
    sys.exit(main())
