"""SmolLM2-135M made sparse: shares by divergent tokens against equal shares.

Both without retraining, and with a short one behind each round, as in the paper. Shares are chosen
on prefixes of every other training document, retraining reads the rest, and all is judged on
held-out ones. Of each point also how many attention components are zero to 90 % and
more (Divergent Token Metrics, arXiv 2311.01544: a quarter of them at 75 %, with retraining), and
the bytes of all tensors: as they are stored, and as compressed sparse rows would take them.

`removal`: how long one pass of the reference network takes once what vanished is removed, over that
of the checkpoint as it is, in turns. `found` is the last point chosen by FDT, not retrained;
`constructed` has neither attention nor FFN in every fourth layer, which nothing chose.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from assembler import seed as seeds
from assembler.corpora.domains import PROJECTION_DOMAINS, fetch
from assembler.network import Network
from assembler.retraining import Retraining
from assembler.share_search import ShareSearch
from assembler.sparsification import Sparsifier
from engine.sparsity import Kind, Shares
from engine.sparsity_curve import By, SparsePoint, Sparsification
from registry.blobs import BlobStore, LocalBlobs
from registry.checkpoint_folder import CheckpointFolder
from registry.documents import Document, parse
from registry.manifests import Manifest
from registry.quantisation import WEIGHT
from service.bars import Bar
from service.demo_family import DOCUMENTS_PER_DOMAIN
from tests import tiny
from tests.benchmarks import reports

NAME = "sparsity"
PACKAGES = ("nexusmix", "torch")
DOMAINS = tuple(domain for domain in PROJECTION_DOMAINS if domain.name in ("essays", "python"))
# An index of two bytes beside each number, and where each row begins.
INDEX_BYTES, ROW_BYTES = 2, 4
CURVES: tuple[By, ...] = ("uniform", "fdt")
RETRAINED = ", retrained"
# Of one timed pass: texts and tokens of each. The head, which removal leaves as it is, is left out.
PASS = (4, 128)


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "zeros by divergent tokens, against equal shares")
    parser.add_argument("--totals", type=float, nargs="+", default=[0.1, 0.2, 0.35, 0.5, 0.75])
    parser.add_argument("--prompts", type=int, default=8, help="that shares are chosen on")
    parser.add_argument("--prefix-tokens", type=int, default=16)
    parser.add_argument("--completion-tokens", type=int, default=16)
    parser.add_argument("--judging-prompts", type=int, default=16)
    parser.add_argument("--retrain-tokens", type=int, default=8192, help="behind each round")
    parser.add_argument("--turns", type=int, default=7, help="of each timing")
    parser.add_argument("--judging-tokens", type=int, default=64, help="of each continuation")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.totals, chosen.prompts, chosen.judging_prompts = [0.2, 0.5], 4, 4
        chosen.retrain_tokens = 2048
    shared = {"share": 1.0, "prefix_tokens": chosen.prefix_tokens}
    asked = Sparsification(
        prompts=chosen.prompts, completion_tokens=chosen.completion_tokens, **shared
    )
    judging = Sparsification(
        prompts=chosen.judging_prompts, completion_tokens=chosen.judging_tokens, **shared
    )
    with TemporaryDirectory(prefix="nexusmix-sparsity-") as folder:
        blobs = LocalBlobs(Path(folder))
        manifest, documents = _tiny(blobs) if chosen.quick else _smollm2(blobs)
        bench = _Bench(manifest, documents, asked, judging, blobs)
        none = bench.judge({})
        curves: dict[str, list[dict[str, Any]]] = {}
        for retrained, tokens in (("", 0), (RETRAINED, chosen.retrain_tokens)):
            for by in CURVES:
                curves[by + retrained] = bench.curve(by, chosen.totals, tokens=tokens)
        removal = bench.removal(curves["fdt"][-1]["shares"], turns=chosen.turns)
    figures = {
        "model": "tiny" if chosen.quick else seeds.NAME,
        "texts": [domain.name for domain in DOMAINS],
        "threads": torch.get_num_threads(),
        "num_components": len(bench.components),
        "num_attention_components": sum(c.kind == "attention" for c in bench.components),
        "choosing": asked.model_dump(include={"prompts", "prefix_tokens", "completion_tokens"}),
        "retrain_tokens": chosen.retrain_tokens,
        "judging": judging.model_dump(include={"prompts", "prefix_tokens", "completion_tokens"}),
        "none": none,
        "curves": curves,
        "removal": removal,
    }
    bars = [
        Bar("bytes stored at the end over those of the tensors", shrunk, "<", 1)
        for shrunk in (points[-1]["num_bytes"] / none["num_bytes"] for points in curves.values())
    ]
    if not chosen.quick:
        ratio = removal["constructed"]["ratio"]["median"]
        bars.append(Bar("CPU time of a pass without every fourth layer", ratio, "<", 1))
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


class _Bench:
    """The checkpoint, texts to choose on and texts to judge on."""

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        asked: Sparsification,
        judging: Sparsification,
        blobs: BlobStore,
    ) -> None:
        training = [_training(own) for own in documents]
        choosing = [[replace(d, split="held-out") for d in own[::2]] for own in training]
        self._relearned = [own[1::2] for own in training]
        self._chooser = Sparsifier(manifest, choosing, asked, blobs=blobs, on_progress=reports.say)
        self._judge = Sparsifier(manifest, documents, judging, blobs=blobs, on_progress=reports.say)
        # One network, so that what was retrained is judged.
        self._judge.yardstick.network = self._chooser.yardstick.network
        self._manifest, self._blobs = manifest, blobs
        self.components = self._chooser.components

    def curve(self, by: By, totals: Sequence[float], *, tokens: int = 0) -> list[dict[str, Any]]:
        """`tokens` are those of the retraining behind each round."""
        network = self._chooser.yardstick.network
        search = ShareSearch(
            network,
            self.components,
            self._chooser.yardstick.texts,
            by=by,
            on_progress=lambda text: None,
        )
        retraining = Retraining(
            self._manifest,
            self._relearned,
            tokens=tokens,
            blobs=self._blobs,
            on_progress=lambda text: None,
        )
        points = []
        with self._as_it_was(network):
            started = time.process_time()
            for shares in search.rounds(totals):
                if tokens:
                    retraining.run(network, shares)
                seconds = time.process_time() - started
                points.append(self.judge(shares) | {"cpu_seconds": round(seconds, 1)})
                told = {name: value for name, value in points[-1].items() if name != "shares"}
                reports.say(f"{by}, {tokens} tokens: {told}")
                started = time.process_time()
        return points

    @contextmanager
    def _as_it_was(self, network: Network) -> Iterator[None]:
        """The network has its weights again behind the block."""
        weights = {c.name: network.get_parameter(c.name + WEIGHT) for c in self.components}
        yield
        for name, weight in weights.items():
            network.get_submodule(name).weight = weight

    def removal(self, found: Shares, *, turns: int) -> dict[str, Any]:
        constructed = {c.name: 1.0 for c in self.components if c.layer % 4 == 1}
        return {
            "found": self._times(found, turns=turns),
            "constructed": self._times(constructed, turns=turns),
        }

    def _times(self, shares: Shares, *, turns: int) -> dict[str, Any]:
        """CPU time of a pass without what vanished at these shares, over one of all."""
        made = self._judge.write(self._judge.point(shares))
        architecture = made.architecture
        networks = [
            Network.from_manifest(manifest, self._blobs, dtype=torch.float32)
            for manifest in (self._manifest, made)
        ]
        tokens_BT = torch.randint(architecture.vocab_size, PASS)
        seconds: list[list[float]] = [[], []]
        # The first turn warms up.
        for _ in range(turns + 1):
            for network, own in zip(networks, seconds, strict=True):
                started = time.process_time()
                with torch.inference_mode():
                    network(tokens_BT, head=lambda x_BTD, _: x_BTD)
                own.append(time.process_time() - started)
        before, after = (own[1:] for own in seconds)
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
        point: SparsePoint = self._judge.point(shares)
        told = point.model_dump(mode="json", exclude={"shares"})
        return {name: round(value, 4) for name, value in told.items()} | {
            "num_bytes_csr": self._csr_bytes(shares),
            "attention_from_90_percent": self._count("attention", shares, least=0.9),
            "attention_vanished": self._count("attention", shares, least=1.0),
            "ffn_from_90_percent": self._count("ffn", shares, least=0.9),
            "ffn_vanished": self._count("ffn", shares, least=1.0),
            # As many digits as name the same weights in the largest matrix.
            "shares": {name: round(share, 7) for name, share in shares.items()}
            if len(set(shares.values())) > 1
            else {},
        }

    def _count(self, kind: Kind, shares: Shares, *, least: float) -> int:
        return sum(shares.get(c.name, 0.0) >= least for c in self.components if c.kind == kind)

    def _csr_bytes(self, shares: Shares) -> int:
        """Of all tensors, each matrix as compressed sparse rows where that is smaller."""
        total = self._manifest.num_bytes
        for component in self.components:
            entry = self._manifest.tensors[component.name + WEIGHT]
            width = entry.num_bytes // entry.num_numbers
            num_kept = entry.num_numbers - round(shares.get(component.name, 0) * entry.num_numbers)
            rows = num_kept * (width + INDEX_BYTES) + (entry.shape[0] + 1) * ROW_BYTES
            total -= max(0, entry.num_bytes - rows)
        return total


def _smollm2(blobs: LocalBlobs) -> tuple[Manifest, list[list[Document]]]:
    paths = fetch(DOMAINS, limit=DOCUMENTS_PER_DOMAIN, on_progress=reports.say)
    manifest = CheckpointFolder.read(seeds.seed_folder()).keep(blobs)
    return manifest, [parse([path.read_bytes()]) for path in paths.values()]


def _tiny(blobs: LocalBlobs) -> tuple[Manifest, list[list[Document]]]:
    return tiny.store_manifest(blobs), [tiny.sample_documents(expert=number) for number in (1, 2)]


def _training(documents: Sequence[Document]) -> list[Document]:
    return [d for d in documents if d.split == "train"]


if __name__ == "__main__":
    sys.exit(main())
