"""Measure how long `nexusmix gate` takes with the lengths of the paper.

The reference is the demo's mix of three experts; candidates are the same mix with int8 layers. All
are Hugging Face folders. Each comparison runs the command in a process, with a cache that is empty
at the beginning. The first comparison writes the texts of the reference and measures its noise; a
second candidate finds them in the cache. The same is done with candidates served by vLLM; the first
of these needs a server for the reference too, to measure its noise.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from assembler.compression import int8_checkpoint
from engine.compression import int8_units
from engine.compression.int8_units import Unit
from engine.vllm_build import vllm_package
from engine.vllm_server import vllm_process
from registry.blobs.blobs import LocalBlobs
from registry.catalog import documents
from registry.checkpoints import exports
from registry.checkpoints.manifests import Manifest
from service.demo.bars import Bar
from tests.benchmarks.harness import demo_mix, processes, reports
from tests.benchmarks.harness.demo_mix import DemoMix
from tests.engine.forwarding import forwarded

NAME = "gate"
PACKAGES = ("nexusmix", "torch", vllm_package())
# Limits that no candidate misses; a failed gate would change the exit status.
LENIENT = ("--min-equal-share=0", "--min-fdt-75=0", "--max-dppl-ratio=1e9")
FIRST, SECOND, SERVED_FIRST, SERVED = "first", "second", "served, first", "served, second"
# In these runs the texts and the noise of the reference are cached.
KNOWN = (SECOND, SERVED)
MAX_SECONDS = 180
REPORTED = ("fdt", "sdt", "equal_share", "logprob_difference")


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "minutes that a comparison of two mixes takes")
    parser.add_argument("--prompts", type=int, default=50, help="of each domain")
    parser.add_argument("--tokens", type=int, default=100, help="of a prefix, and of its text")
    chosen = reports.chosen(parser, argv)
    if chosen.quick:
        chosen.prompts, chosen.tokens = 2, 8
    demo = demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m()
    with TemporaryDirectory(prefix="nexusmix-gate-") as path:
        bench = _Bench(demo, Path(path), prompts=chosen.prompts, tokens=chosen.tokens)
        bench.compare(FIRST, str(bench.halved))
        bench.compare(SECOND, str(bench.smallest))
        if not chosen.quick:
            with bench.serving(bench.smallest) as address:
                bench.compare(SERVED_FIRST, address)
                bench.compare(SERVED, address)
    figures = {
        "model": demo.name,
        "domains": list(demo.documents),
        "prompts_per_domain": chosen.prompts,
        "tokens": {"prefix": chosen.tokens, "completion": chosen.tokens},
        "comparisons": bench.comparisons,
    }
    bars = [
        Bar(f"seconds of a comparison, {name}", comparison["seconds"], "<=", MAX_SECONDS)
        for name, comparison in bench.comparisons.items()
        if name in KNOWN
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


class _Bench:
    """The folders of the reference and of two candidates, the documents, and an empty cache.

    The candidate `halved` has every second unit in int8, `smallest` all units.
    """

    def __init__(self, demo: DemoMix, folder: Path, *, prompts: int, tokens: int) -> None:
        self._folder = folder
        self._lengths = (
            f"--prompts={prompts}",
            f"--prefix-tokens={tokens}",
            f"--completion-tokens={tokens}",
        )
        units = int8_units.units(demo.mix, "cpu")
        self._reference = _export(demo.mix, demo.blobs, folder / "mix")
        self.halved, self.smallest = (
            _export(_in_int8(demo, chosen), demo.blobs, folder / name)
            for name, chosen in (("halved", units[::2]), ("smallest", units))
        )
        texts = [replace(d, domain=name) for name, ds in demo.documents.items() for d in ds]
        self._documents = folder / "documents.jsonl"
        self._documents.write_bytes(documents.serialize(texts))
        self.comparisons: dict[str, dict[str, Any]] = {}

    def compare(self, name: str, candidate: str) -> None:
        """Compare a candidate once, and store its cost and its result."""
        report = self._folder / "report.json"
        usage = processes.measure(
            [
                *(sys.executable, "-m", "service.cli", "gate", str(self._reference), candidate),
                f"--documents={self._documents}",
                f"--report={report}",
                *self._lengths,
                *LENIENT,
            ],
            env=os.environ | {"NEXUSMIX_HOME": str(self._folder / "home")},
            log_path=self._folder / "gate.log",
        )
        self.comparisons[name] = {
            "seconds": round(usage.seconds, 1),
            "cpu_seconds": round(usage.cpu_seconds, 1),
            "private_mb": round(usage.private_bytes / 1e6),
            "domains": {
                domain["domain"]: {
                    side: _summary(domain[side]) for side in ("candidate", "noise_floor")
                }
                for domain in json.loads(report.read_text())["domains"]
            },
        }
        reports.say(f"{name}: {self.comparisons[name]}")

    @contextmanager
    def serving(self, folder: Path) -> Iterator[str]:
        """Serve a folder, and yield the name of the server for the command."""
        with vllm_process.serving_folder(folder, log_path=self._folder / "server.log") as running:
            running.wait_ready()
            with forwarded(running.address) as url:
                yield f"{url}/v1#{running.model}"


def _in_int8(demo: DemoMix, units: Sequence[Unit]) -> Manifest:
    modules = int8_units.modules(units)
    return int8_checkpoint.write(demo.mix, modules, target="cpu", blobs=demo.blobs)


def _export(manifest: Manifest, blobs: LocalBlobs, folder: Path) -> Path:
    exports.export(manifest, blobs, folder, on_bytes=lambda _: None)
    return folder


def _summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in REPORTED}


if __name__ == "__main__":
    sys.exit(main())
