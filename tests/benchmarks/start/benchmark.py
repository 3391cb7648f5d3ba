"""Measure the cold start of an engine, from nothing and forked, to its first token.

Engines of each mix are started in turns, in changing order: by a new process, and forked from a
process that has imported vLLM. A client asks for one token as soon as `/health` is answered, as it
would without the agent's own first request. Nothing else should be running: seconds are wall-clock
time. The seconds of CPU time depend less on the neighbors.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from engine.launch.adopted_process import process_times
from engine.launch.forking_launcher import ForkingLauncher
from engine.launch.launcher import Launcher, LocalLauncher
from engine.vllm_build import serving_dtype, vllm_package
from engine.vllm_server import endpoints, engine_launcher, vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore, LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.settings import settings
from service.demo.bars import Bar
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.harness import reports
from tests.benchmarks.start import models

NAME = "start"
PACKAGES = ("nexusmix", "torch", vllm_package())
NEW, FORKED = "new process", "forked"
MOST_SECONDS = 10.0
MOST_SECONDS_OF_SHAPE = 3.0
IMPORT_SECONDS = 300.0
POLL_SECONDS = 0.01
PROMPT = list(range(10, 42))
MEGABYTE = 1e6


@dataclass(frozen=True)
class Start:
    """One start of an engine: until it answers `/health`, and until its first token."""

    seconds_ready: float
    seconds: float
    cpu_seconds: float
    pss: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "seconds of the start of an engine to its first token")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = reports.chosen(parser, argv)
    rounds = 1 if chosen.quick else chosen.rounds
    root = settings().cache_path / "benchmarks" / NAME / "blobs"
    root.mkdir(parents=True, exist_ok=True)
    with (
        mock.patch.dict(os.environ, {"NEXUSMIX_PRELOAD": "true"}),
        own_home(LocalBlobs(root)) as blobs,
    ):
        mixes = models.made(blobs, quick=chosen.quick)
        figures: dict[str, Any] = {
            "rounds": rounds,
            "dtype": serving_dtype(),
            "load_average": round(os.getloadavg()[2], 1),
        }
        with engine_launcher.preloaded() as forking:
            assert isinstance(forking, ForkingLauncher), "vLLM is built for cards"
            figures["preloaded"] = _imports(forking)
            figures["mixes"] = {
                name: _compare(mix, blobs, forking, rounds=rounds) for name, mix in mixes.items()
            }
    bars = [
        Bar(f"seconds to the first token, {name}, forked", _median(figures, name), "<=", most)
        for name in mixes
        for most in (MOST_SECONDS, MOST_SECONDS_OF_SHAPE)
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


def _median(figures: Mapping[str, Any], name: str) -> float:
    return float(figures["mixes"][name][FORKED]["seconds"]["median"])


def _imports(forking: ForkingLauncher) -> dict[str, float]:
    """Wait until the process that is forked listens; return its time and memory."""
    began = time.perf_counter()
    _wait(lambda: forking.is_ready, IMPORT_SECONDS)
    figures = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(process_times(forking.pid), 1),
        "megabytes": round(_pss(forking.pid) / MEGABYTE),
    }
    reports.say(f"imports: {figures}")
    return figures


def _compare(
    mix: Manifest, blobs: BlobStore, forking: ForkingLauncher, *, rounds: int
) -> dict[str, Any]:
    """Start engines of a mix in turns; the first turn is a warm-up of the page cache."""
    launchers: dict[str, Launcher] = {NEW: LocalLauncher(), FORKED: forking}
    runs: dict[str, list[Start]] = {kind: [] for kind in launchers}
    for number in range(rounds + 1):
        for kind in launchers if number % 2 else reversed(launchers):
            start = _start(mix, blobs, launchers[kind], shared=forking.pid)
            reports.say(f"{kind}: {start}")
            runs[kind].append(start)
    return {kind: _figures(starts[1:]) for kind, starts in runs.items()}


def _figures(starts: Sequence[Start]) -> dict[str, Any]:
    return {
        "seconds_ready": reports.summary([start.seconds_ready for start in starts], digits=2),
        "seconds": reports.summary([start.seconds for start in starts], digits=2),
        "cpu_seconds": reports.summary([start.cpu_seconds for start in starts], digits=2),
        "megabytes": reports.summary([start.pss / MEGABYTE for start in starts], digits=0),
    }


def _start(mix: Manifest, blobs: BlobStore, launcher: Launcher, *, shared: int) -> Start:
    """Start an engine, ask it for a token, and stop it.

    Its memory is its own and that of the tree of the process `shared`, which it may share.
    """
    log_path = Path(settings().home, "engine.log")
    began = time.perf_counter()
    server = vllm_process.start(
        mix, blobs=blobs, names=["mix"], log_path=log_path, launcher=launcher
    )
    try:
        _wait(server.is_ready, vllm_process.START_SECONDS)
        ready = time.perf_counter()
        _ask(server)
        answered = time.perf_counter()
        pid = int(server.process.name.removeprefix("pid "))
        return Start(
            seconds_ready=ready - began,
            seconds=answered - began,
            cpu_seconds=process_times(pid),
            pss=_pss(pid, shared),
        )
    finally:
        server.stop()


def _ask(server: Server) -> None:
    """Return at the first token of an answer."""
    body = {"model": server.model, "prompt": [PROMPT], "max_tokens": 1, "stream": True}
    with (
        endpoints.client(server.address, timeout=vllm_process.WARM_UP_SECONDS) as client,
        client.stream("POST", "/v1/completions", json=body) as answer,
    ):
        answer.raise_for_status()
        next(answer.iter_lines())


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Raises TimeoutError."""
    give_up_at = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > give_up_at:
            raise TimeoutError(f"nothing after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def _pss(*pids: int) -> float:
    """Return the bytes of processes and their descendants, each of them once.

    A page that several share is divided among them.
    """
    roots = [psutil.Process(pid) for pid in pids]
    trees = {one for root in roots for one in (root, *root.children(recursive=True))}
    return float(sum(one.memory_full_info().pss for one in trees))


if __name__ == "__main__":
    sys.exit(main())
