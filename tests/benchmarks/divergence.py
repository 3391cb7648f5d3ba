"""Measure the cost of a compared token: reading known texts, or generating with both models.

SmolLM2-135M in float32 is the reference. The candidate is the same model with every matrix rounded
to eight bits (AbsMax by row, arXiv 2311.01544, section 4.3). The CPU time of one process with one
thread is measured. The ways take turns, and the order changes. Generating uses a key-value cache in
both models: in our network, and, one prefix at a time, in transformers. The result also has the
bytes stored for a compared token, here and in a comparison by Kullback-Leibler divergence.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from assembler.demo import seed_folders, seeds
from assembler.demo.corpora import domains, public_texts
from assembler.evaluation import reference_cache
from assembler.evaluation.comparison_request import Folder
from assembler.evaluation.comparison_sides import network_of, open_subject
from assembler.network import network_runner
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation, Reading, Tokens
from engine.divergence.runners import Runner
from registry.blobs import blob_stores
from registry.catalog import documents
from service.demo.bars import Bar
from tests.benchmarks.harness import reports
from tests.benchmarks.rounding import round_matrices

NAME = "divergence"
PACKAGES = ("nexusmix", "torch", "transformers")
DOMAIN = domains.EXPERT_DOMAINS[-1]
PREFIX_TOKENS = COMPLETION_TOKENS = 100
# Prefixes in a batch -> number of batches; together 52 different prefixes.
SHAPES = {1: 8, 4: 4, 14: 2}
QUICK_SHAPES = {1: 2, 2: 1}
QUICK_TOKENS = 10
READ, GENERATED, THEIRS = "read", "generated with both", "generated with both, transformers"
# Number of batches, with one prefix each, that transformers generates too.
THEIR_BATCHES = 2
# A comparison by KL divergence stores all logits of the reference, or the largest ones.
TOP = 64
MIN_RATIO = 15.0
MAX_BYTES = 5.0

Pair = tuple[Continuation, Reading]


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "cost of a compared token, read or generated")
    chosen = reports.chosen(parser, argv)
    torch.set_num_threads(1)
    contest = _Contest(
        QUICK_SHAPES if chosen.quick else SHAPES,
        num_tokens=QUICK_TOKENS if chosen.quick else COMPLETION_TOKENS,
    )
    for number, (size, prefixes) in enumerate(contest.batches()):
        contest.run(size, prefixes, number)
    batches, stored = contest.figures(), contest.stored()
    figures = {
        "tokens": {"prefix": PREFIX_TOKENS, "completion": contest.num_tokens},
        "threads": torch.get_num_threads(),
        "milliseconds_per_token_written_once": round(contest.written_milliseconds, 2),
        "batches": batches,
        "candidate": contest.summary(),
        "bytes_per_compared_token": stored,
    }
    ratio, kept = batches["1"]["ratio"]["median"], stored["ids and margins"]
    bars = [
        Bar("CPU time of generating over reading, one prefix at a time", ratio, ">=", MIN_RATIO),
        Bar("bytes kept of a compared token", kept, "<", MAX_BYTES),
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


class _Contest:
    """Both models, the texts of the reference, and the times of every batch."""

    def __init__(self, shapes: Mapping[int, int], *, num_tokens: int) -> None:
        self._shapes, self.num_tokens = shapes, num_tokens
        self._folder = seed_folders.unpacked(seeds.DEFAULT)
        opened = open_subject(Folder(path=self._folder), blob_stores.store())
        count = sum(size * number for size, number in shapes.items())
        limit = public_texts.DOCUMENTS_PER_DOMAIN
        path = domains.fetch([DOMAIN], limit=limit, on_progress=reports.say)[DOMAIN.name]
        parsed = documents.parse([path.read_bytes()])
        self._prefixes = opened.vocabulary.prefixes(parsed, length=PREFIX_TOKENS, count=count)
        assert len(self._prefixes) == count, f"{len(self._prefixes)} prefixes, {count} are needed"
        self._reference, self._candidate = network_of(self._folder), network_of(self._folder)
        round_matrices(self._candidate)
        self._theirs = [_theirs(self._folder), _theirs(self._folder)]
        round_matrices(self._theirs[1])
        self._seconds: dict[int, dict[str, list[float]]] = {}
        self._compared: list[Pair] = []
        # The key is new in every run, since writing the texts is measured too.
        self._key = f"{opened.key} {time.time_ns()}"
        began = time.process_time()
        self._known(self._runners(max(shapes))[0])
        self.written_milliseconds = 1e3 * (time.process_time() - began) / (count * self.num_tokens)

    def batches(self) -> Iterator[tuple[int, list[Tokens]]]:
        """Yield the size and the prefixes of each batch; sizes take turns."""
        rest = iter(self._prefixes)
        turns = zip_longest(*([size] * number for size, number in self._shapes.items()))
        for size in (size for turn in turns for size in turn if size is not None):
            yield size, [next(rest) for _ in range(size)]

    def run(self, size: int, prefixes: list[Tokens], number: int) -> None:
        """Measure every way once on a batch."""
        seconds = self._seconds.setdefault(size, {})
        reference, candidate = self._runners(size)

        def read() -> list[Pair]:
            texts = [text for text in self._known(reference) if text.prefix in prefixes]
            return list(zip(texts, candidate.read(texts), strict=True))

        def generate() -> list[Any]:
            return [r.write(prefixes, num_tokens=self.num_tokens) for r in (reference, candidate)]

        ways: dict[str, Callable[[], list[Any]]] = {READ: read, GENERATED: generate}
        if size == 1 and len(seconds.get(THEIRS, [])) < THEIR_BATCHES:
            ways[THEIRS] = lambda: [self._generate(model, prefixes) for model in self._theirs]
        for name in list(ways)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            result = ways[name]()
            seconds.setdefault(name, []).append(time.process_time() - began)
            if name == READ:
                self._compared += result
        times = ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in ways)
        reports.say(f"batch {number + 1}, of {size}: {times}")

    def figures(self) -> dict[str, Any]:
        """Return the CPU time of one compared token, by size of batch."""
        by_size: dict[str, Any] = {}
        for size, seconds in self._seconds.items():
            tokens = size * self.num_tokens
            ratios = [a / b for a, b in zip(seconds[GENERATED], seconds[READ], strict=True)]
            by_size[str(size)] = {
                "prefixes": size * len(seconds[READ]),
                "milliseconds_per_compared_token": {
                    name: reports.summary([1e3 * s / tokens for s in runs], digits=2)
                    for name, runs in seconds.items()
                },
                "ratio": reports.summary(ratios, digits=2),
            }
        return by_size

    def summary(self) -> dict[str, Any]:
        """Return the metrics of the comparison."""
        texts, readings = [t for t, _ in self._compared], [r for _, r in self._compared]
        summary = summarize(texts, readings)
        return {
            "prefixes": summary.num_prefixes,
            "fdt_25_50_75": [summary.fdt.p25, summary.fdt.p50, summary.fdt.p75],
            "fdt_mean": round(summary.fdt.mean, 2),
            "fdt_mean_interval": summary.fdt.interval,
            "sdt_mean": round(summary.sdt.mean, 2),
            "equal_share": round(summary.equal_share, 4),
        }

    @torch.inference_mode()
    def stored(self) -> dict[str, float]:
        """Return the bytes stored for a compared token, by method.

        Ours is measured on all texts in the cache, KL divergence on one text.
        """
        key = reference_cache.key_of(self._key, self._prefixes, num_tokens=self.num_tokens)
        texts = [text for text, _ in self._compared]
        kept = reference_cache.num_bytes(key) / sum(len(text.tokens) for text in texts)
        tokens = torch.tensor([texts[0].prefix + texts[0].tokens])
        logits_TV = self._reference(tokens)[0, PREFIX_TOKENS - 1 : -1]
        values, ids = logits_TV.topk(TOP)
        return {
            "ids and margins": round(kept, 2),
            f"KL: the {TOP} largest logits in float16 and their ids in 32 bits": _row_bytes(
                {"values": values.half(), "ids": ids.int()}
            ),
            "KL: all logits in float16": _row_bytes({"logits": logits_TV.half()}),
        }

    def _known(self, reference: Runner) -> list[Continuation]:
        return reference_cache.continuations(
            self._key, self._prefixes, num_tokens=self.num_tokens, load=lambda: reference
        )

    def _runners(self, size: int) -> list[Runner]:
        tokens = size * (PREFIX_TOKENS + self.num_tokens)
        return [
            network_runner.runner(network, batch_tokens=tokens)
            for network in (self._reference, self._candidate)
        ]

    def _generate(self, model: Any, prefixes: list[Tokens]) -> Tensor:
        with torch.inference_mode():
            tokens: Tensor = model.generate(
                torch.tensor(prefixes),
                attention_mask=torch.ones(len(prefixes), PREFIX_TOKENS, dtype=torch.long),
                do_sample=False,
                min_new_tokens=self.num_tokens,
                max_new_tokens=self.num_tokens,
            )
        return tokens


def _theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _row_bytes(tensors: dict[str, Tensor]) -> float:
    """Return the bytes that one row of the tensors takes in a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kept.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return round(path.stat().st_size / len(next(iter(tensors.values()))), 1)


if __name__ == "__main__":
    sys.exit(main())
