"""Compare zeros chosen by divergent tokens with equal shares, on the seed, an expert and a mix.

Shares are chosen on prefixes of every other held-out document and judged on the others. On the seed
both are measured also with a short retraining after each round, as in the paper. Each point has the
number of attention components with at least 90 % zeros (Divergent Token Metrics, arXiv 2311.01544:
a quarter of them at 75 %, with retraining), and the bytes of all tensors as stored and as
compressed sparse rows.

`removal` is the time of a pass of the seed's network after empty parts were removed, divided by
that before, measured in turns. `found` is the last point chosen by FDT without retraining.
`constructed` has no attention and no FFN in every fourth layer, independent of any search.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch

from assembler.compression.probe import Probe
from assembler.compression.retraining import Retraining
from assembler.compression.share_search import ShareSearch
from assembler.compression.sparsify import Sparsifier
from assembler.network.model import Network
from engine.compression import sparsity_components
from engine.compression.measures import ProbeSize
from engine.compression.sparsity_components import Kind, Shares
from engine.compression.sparsity_curve import By, Sparsification
from registry.blobs.blobs import BlobStore
from registry.checkpoints.tensor_names import WEIGHT
from service.demo.bars import Bar
from tests.benchmarks.compression import subjects
from tests.benchmarks.compression.subjects import Subject
from tests.benchmarks.harness import demo_mix, reports
from tests.benchmarks.harness.cached_results import once

NAME = "sparsity"
PACKAGES = ("nexusmix", "torch")
# Raise it when cached results of earlier runs are no longer valid.
VERSION = 1
# Compressed sparse rows: an index of each number, and the start of each row.
INDEX_BYTES, ROW_BYTES = 2, 4
CURVES: tuple[By, ...] = ("uniform", "fdt")
# Texts, and tokens of each, in one timed pass. It leaves out the head, which removal never changes.
PASS = (4, 128)


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME, "zeros by divergent tokens, against equal shares; can be interrupted"
    )
    parser.add_argument("--totals", type=float, nargs="+", default=[0.2, 0.35, 0.5, 0.75])
    parser.add_argument("--retrain-tokens", type=int, default=8192, help="behind each round")
    parser.add_argument("--turns", type=int, default=7, help="of each timing")
    subjects.add_options(parser, prompts=8, completion_tokens=24, judging_prompts=32)
    chosen = reports.chosen(parser, argv)
    if chosen.quick:
        chosen.totals, chosen.prompts, chosen.judging_prompts = [0.2, 0.5], 4, 4
        chosen.retrain_tokens = 2048
    torch.set_num_threads(1)
    demo = demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m()
    choosing, judging = subjects.texts(chosen)
    before = subjects.known(chosen)
    by_name, removal = (before.get(name, {}) for name in ("subjects", "removal"))
    for subject in subjects.of(demo, chosen.subjects):
        is_seed = subject.manifest == demo.seed
        bench = _Bench(
            subject,
            choosing,
            judging,
            chosen.totals,
            retrain_tokens=chosen.retrain_tokens if is_seed else 0,
            blobs=demo.blobs,
        )
        by_name[subject.name] = bench.measure()
        if is_seed:
            shares = by_name[subject.name]["curves"]["fdt"][-1]["shares"]
            removal = bench.removal(shares, turns=chosen.turns)
    figures = {
        "threads": torch.get_num_threads(),
        "choosing": choosing.model_dump(),
        "judging": judging.model_dump(),
        "retrain_tokens": chosen.retrain_tokens,
        "subjects": by_name,
        "removal": removal,
    }
    bars = [
        Bar(f"{name}, {way}: bytes stored at the end over all", ratio, "<", 1)
        for name, subject in by_name.items()
        for way, ratio in subject["stored"].items()
    ]
    if removal and not chosen.quick:
        ratio = removal["constructed"]["ratio"]["median"]
        bars.append(Bar("CPU time of a pass without every fourth layer", ratio, "<", 1))
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


class _Bench:
    """A checkpoint, with texts to choose on and to judge on, which are loaded when needed."""

    def __init__(
        self,
        subject: Subject,
        choosing: ProbeSize,
        judging: ProbeSize,
        totals: Sequence[float],
        *,
        retrain_tokens: int,
        blobs: BlobStore,
    ) -> None:
        self._subject, self._choosing, self._judging = subject, choosing, judging
        self._totals, self._retrain_tokens, self._blobs = totals, retrain_tokens, blobs
        self._manifest = subject.manifest
        self.components = sparsity_components.components(subject.manifest)

    def measure(self) -> dict[str, Any]:
        """Return all curves, cached from earlier runs."""
        texts = [size.model_dump() for size in (self._choosing, self._judging)]
        key = [VERSION, self._manifest.digest, *texts]
        searching = [*key, list(self._totals)]
        curves: dict[str, list[dict[str, Any]]] = {
            by: once(NAME, [*searching, by, 0], partial(self.curve, by, tokens=0)) for by in CURVES
        }
        if tokens := self._retrain_tokens:
            curves |= {
                f"{by}, retrained": once(
                    NAME, [*searching, by, tokens], partial(self.curve, by, tokens=tokens)
                )
                for by in CURVES
            }
        none = once(NAME, key, partial(self.judge, {}))
        return {
            "domains": list(self._subject.documents),
            "num_components": len(self.components),
            "num_attention_components": sum(c.kind == "attention" for c in self.components),
            "none": none,
            "curves": curves,
            "stored": {
                way: round(points[-1]["num_bytes"] / none["num_bytes"], 4)
                for way, points in curves.items()
            },
        }

    @cached_property
    def _chooser(self) -> Probe:
        return Probe(
            self._manifest,
            self._subject.choosing,
            self._choosing,
            blobs=self._blobs,
            on_progress=reports.say,
        )

    @cached_property
    def _judge(self) -> Sparsifier:
        request = Sparsification(share=1.0, **self._judging.model_dump())
        sparsifier = Sparsifier(
            self._manifest,
            self._subject.judging,
            request,
            blobs=self._blobs,
            on_progress=reports.say,
        )
        # The same network, so that retrained weights are judged.
        sparsifier.probe.network = self._chooser.network
        return sparsifier

    def curve(self, by: By, *, tokens: int) -> list[dict[str, Any]]:
        """Return the points of a search, with a retraining by `tokens` tokens after each round."""
        network = self._chooser.network
        search = ShareSearch(
            network,
            self.components,
            self._chooser.texts,
            by=by,
            on_progress=lambda text: None,
        )
        retraining = Retraining(
            self._manifest,
            self._subject.learning,
            tokens=tokens,
            blobs=self._blobs,
            on_progress=lambda text: None,
        )
        points = []
        with self._restoring(network):
            started = time.process_time()
            for shares in search.rounds(self._totals):
                if tokens:
                    retraining.run(network, shares)
                seconds = time.process_time() - started
                points.append(self.judge(shares) | {"cpu_seconds": round(seconds, 1)})
                figures = {name: value for name, value in points[-1].items() if name != "shares"}
                reports.say(f"{by}, {tokens} tokens: {figures}")
                started = time.process_time()
        return points

    @contextmanager
    def _restoring(self, network: Network) -> Iterator[None]:
        """Restore the weights of the network at the end of the block."""
        weights = {c.name: network.get_parameter(c.name + WEIGHT) for c in self.components}
        yield
        for name, weight in weights.items():
            network.get_submodule(name).weight = weight

    def removal(self, chosen: Shares, *, turns: int) -> dict[str, Any]:
        """Return times without the parts that are empty at `chosen` and at constructed shares."""
        constructed = {c.name: 1.0 for c in self.components if c.layer % 4 == 1}
        return {
            "found": self._times(chosen, turns=turns),
            "constructed": self._times(constructed, turns=turns),
        }

    def _times(self, shares: Shares, *, turns: int) -> dict[str, Any]:
        """Compare the CPU time of a pass with that after removing parts empty at these shares."""
        made = self._judge.write(self._judge.point(shares))
        architecture = made.architecture
        networks = [
            Network.from_manifest(manifest, self._blobs, dtype=torch.float32)
            for manifest in (self._manifest, made)
        ]
        tokens_BT = torch.randint(architecture.vocab_size, PASS)
        seconds: list[list[float]] = [[], []]
        # The first turn is a warm-up.
        for _ in range(turns + 1):
            for network, times in zip(networks, seconds, strict=True):
                started = time.process_time()
                with torch.inference_mode():
                    network(tokens_BT, head=lambda x_BTD, _: x_BTD)
                times.append(time.process_time() - started)
        before, after = (times[1:] for times in seconds)
        ratios = [b / a for a, b in zip(before, after, strict=True)]
        return {
            "layers_without_attention": len(architecture.layers_without_attention),
            "layers_without_ffn": architecture.ffn_sizes.count(0),
            "num_parameters": architecture.num_parameters,
            "num_parameters_before": self._manifest.architecture.num_parameters,
            "num_bytes": made.num_stored_bytes,
            "cpu_seconds": reports.summary(after, digits=4),
            "cpu_seconds_before": reports.summary(before, digits=4),
            "ratio": reports.summary(ratios),
        }

    def judge(self, shares: Shares) -> dict[str, Any]:
        """Return the figures of a point, measured on the texts to judge on."""
        point = self._judge.point(shares)
        return {
            "share": round(point.share, 4),
            "num_bytes": point.num_bytes,
            "num_bytes_csr": self._csr_bytes(shares),
            "fdt_75": point.fdt_75,
            "fdt_mean": round(point.fdt_mean, 3),
            "fdt_mean_interval": _rounded(point.fdt_mean_interval),
            "dppl": round(point.dppl, 4),
            "perplexity": round(point.perplexity, 4),
            "attention_from_90_percent": self._count("attention", shares, least=0.9),
            "attention_vanished": self._count("attention", shares, least=1.0),
            "ffn_from_90_percent": self._count("ffn", shares, least=0.9),
            "ffn_vanished": self._count("ffn", shares, least=1.0),
            # With seven digits a share gives the same number of weights in the largest matrix.
            "shares": {name: round(share, 7) for name, share in shares.items()}
            if len(set(shares.values())) > 1
            else {},
        }

    def _count(self, kind: Kind, shares: Shares, *, least: float) -> int:
        return sum(shares.get(c.name, 0.0) >= least for c in self.components if c.kind == kind)

    def _csr_bytes(self, shares: Shares) -> int:
        """Return the bytes of all tensors, with compressed sparse rows where these are smaller."""
        total = self._manifest.num_bytes
        for component in self.components:
            entry = self._manifest.tensors[component.name + WEIGHT]
            width = entry.num_bytes // entry.num_numbers
            num_kept = entry.num_numbers - round(shares.get(component.name, 0) * entry.num_numbers)
            rows = num_kept * (width + INDEX_BYTES) + (entry.shape[0] + 1) * ROW_BYTES
            total -= max(0, entry.num_bytes - rows)
        return total


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return interval and [round(x, 2) for x in interval]


if __name__ == "__main__":
    sys.exit(main())
