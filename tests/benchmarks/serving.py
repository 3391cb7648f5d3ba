"""Measure what compression saves in serving: two servers answer the same requests in turns.

There are three pairs: SmolLM2-135M, and the same without attention and FFN in every fourth layer;
SmolLM2-135M, and the same with all units in int8; the demo's mix, and the same with all units in
int8. Both vLLM servers of a pair run, and take turns in changing order. `write` continues several
prompts together; `read` generates one token after long prompts. No two turns have the same prompts,
since servers cache them.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from assembler.compression import int8_checkpoint, pruning, structural_pruning
from engine.compression import int8_units
from engine.compression.sparsity_components import components
from engine.divergence.metrics import Tokens
from engine.launch.launcher import LocalProcess
from engine.vllm_build import serving_dtype, vllm_package
from engine.vllm_plugin import tensors
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import WEIGHT
from service.demo.bars import Bar
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.harness import demo_mix, reports

NAME = "serving"
PACKAGES = ("nexusmix", "torch", vllm_package())
REMOVED = "every fourth layer removed"
PROMPTS = 8
# Tokens of a prompt and of its continuation.
Lengths = Mapping[str, tuple[int, int]]
LENGTHS: Lengths = {"write": (32, 48), "read": (384, 1)}
QUICK_LENGTHS: Lengths = {"write": (32, 8), "read": (128, 1)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "time of served requests, compressed and not")
    parser.add_argument("--turns", type=int, default=7)
    chosen = reports.chosen(parser, argv)
    turns, lengths = (1, QUICK_LENGTHS) if chosen.quick else (chosen.turns, LENGTHS)
    demo = demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m()
    with own_home(demo.blobs) as blobs, TemporaryDirectory(prefix="nexusmix-serving-") as folder:
        pairs = {
            REMOVED: (demo.seed, _without_every_fourth(demo.seed, blobs)),
            "int8": (demo.seed, _in_int8(demo.seed, blobs)),
            "mix, int8": (demo.mix, _in_int8(demo.mix, blobs)),
        }
        compared = {
            name: _compare(pair, blobs, lengths, turns=turns, folder=Path(folder))
            for name, pair in list(pairs.items())[: 1 if chosen.quick else None]
        }
    figures = {
        "model": demo.name,
        "dtype": serving_dtype(),
        "prompts": PROMPTS,
        "tokens": lengths,
        "pairs": compared,
    }
    bars = [
        Bar(
            f"{REMOVED}: CPU time over that before, {kind}", kind_figures["ratio"]["median"], "<", 1
        )
        for kind, kind_figures in compared[REMOVED]["kinds"].items()
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


def _compare(
    pair: tuple[Manifest, Manifest],
    blobs: BlobStore,
    lengths: Lengths,
    *,
    turns: int,
    folder: Path,
) -> dict[str, Any]:
    """Measure CPU and wall seconds of each kind of request on both servers."""
    before, after = pair
    generator = torch.Generator().manual_seed(0)
    with _serving(before, blobs, folder) as one, _serving(after, blobs, folder) as other:
        kinds = {}
        for kind, (length, num_tokens) in lengths.items():
            runs: list[list[tuple[float, float]]] = [[], []]
            # The first turn is a warm-up.
            for turn in range(turns + 1):
                shape = (PROMPTS, length)
                drawn = torch.randint(before.architecture.vocab_size, shape, generator=generator)
                prompts = list(map(tuple, drawn.tolist()))
                for position in (0, 1) if turn % 2 else (1, 0):
                    running = (one, other)[position]
                    runs[position].append(_timed(running, prompts, num_tokens=num_tokens))
            kinds[kind] = _figures(*(run[1:] for run in runs))
            reports.say(f"{kind}: {kinds[kind]}")
    return {
        "num_bytes_before": before.num_stored_bytes,
        "num_bytes": after.num_stored_bytes,
        "kinds": kinds,
    }


def _timed(running: Server, prompts: Sequence[Tokens], *, num_tokens: int) -> tuple[float, float]:
    """Return the CPU seconds of the server, and the seconds until its answer."""
    runner, began, spent = (
        running.runner(),
        time.perf_counter(),
        _cpu_seconds(running),
    )
    runner.write(prompts, num_tokens=num_tokens)
    return _cpu_seconds(running) - spent, time.perf_counter() - began


def _figures(
    before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    cpu = [b[0] / a[0] for a, b in zip(before, after, strict=True)]
    wall = [b[1] / a[1] for a, b in zip(before, after, strict=True)]
    return {
        "cpu_seconds_before": reports.summary([turn[0] for turn in before]),
        "cpu_seconds": reports.summary([turn[0] for turn in after]),
        "ratio": reports.summary(cpu),
        "ratio_of_seconds": reports.summary(wall),
    }


def _cpu_seconds(running: Server) -> float:
    """Return the CPU seconds of the server's processes, from the kernel's count of nanoseconds.

    psutil and /proc/PID/stat count hundredths of a second, which is too coarse for short requests.
    """
    assert isinstance(running.process, LocalProcess), "it runs somewhere else"
    parent = psutil.Process(running.process.pid)
    pids = (process.pid for process in (parent, *parent.children(recursive=True)))
    # The id of the CPU clock of another process, as in clock_getcpuclockid(3) on Linux.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


@contextmanager
def _serving(manifest: Manifest, blobs: BlobStore, folder: Path) -> Iterator[Server]:
    log_path = folder / f"{manifest.digest}.log"
    with vllm_process.serving(manifest, blobs=blobs, log_path=log_path) as running:
        running.wait_ready()
        yield running


def _in_int8(manifest: Manifest, blobs: BlobStore) -> Manifest:
    modules = int8_units.modules(int8_units.units(manifest, "cpu"))
    return int8_checkpoint.write(manifest, modules, target="cpu", blobs=blobs)


def _without_every_fourth(manifest: Manifest, blobs: BlobStore) -> Manifest:
    made = dict(manifest.tensors)
    for component in components(manifest):
        if component.layer % 4 == 1:
            name = component.name + WEIGHT
            made[name] = pruning.store(blobs, tensors.read(blobs, made[name]), 1.0)
    return structural_pruning.without_zeros(replace(manifest, tensors=made), blobs)


if __name__ == "__main__":
    sys.exit(main())
