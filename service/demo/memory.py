"""Measures the peak memory of each kind of process while something runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import psutil

# Adding up the pages of a large process costs milliseconds, of its time too.
SAMPLE_SECONDS = 2.0

# Text in a command line -> kind of the process; the first that occurs counts. A guard process
# counts with the process that it guards.
KINDS = {
    "postgres": "database",
    "service.runtime.supervisor": "supervisor",
    "uvicorn": "web",
    "assembler.jobs.worker": "worker",
    "assembler.jobs.step_main": "step",
    # They import what steps and engines need, and fork them.
    "engine.launch.fork_server": "preloaded",
    "assembler.jobs.offline_tasks": "preparation",
    "engine.serving.agent": "agent",
    "engine.vllm_plugin.api_server": "engine",
    # vLLM's core process has one of these names, first this and then that.
    "multiprocessing": "engine",
    "VLLM": "engine",
}


@dataclass
class Peak:
    """Peak memory of one kind of process, in bytes.

    `pss` is the sum over its processes: PSS divides shared pages among processes, so that sums are
    right. `rss` is the largest process, with all its shared pages.
    """

    pss: int = 0
    rss: int = 0
    num_processes: int = 0


class Peaks:
    """Peak memory by kind of process."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Peak] = {}

    def sample(self) -> None:
        """Measure this process and all its descendants once."""
        this = psutil.Process()
        seen: dict[str, list[tuple[int, int]]] = {"command": [_memory(this)]}
        for process in this.children(recursive=True):
            try:
                seen.setdefault(_kind(process.cmdline()), []).append(_memory(process))
            except psutil.Error:
                continue  # the process has ended
        for kind, sizes in seen.items():
            peak = self.by_kind.setdefault(kind, Peak())
            peak.pss = max(peak.pss, sum(pss for pss, _ in sizes))
            peak.rss = max(peak.rss, *(rss for _, rss in sizes))
            peak.num_processes = max(peak.num_processes, len(sizes))

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the peaks by kind, in bytes."""
        return {kind: asdict(peak) for kind, peak in sorted(self.by_kind.items())}


@contextmanager
def sampled() -> Iterator[Peaks]:
    """Measure every SAMPLE_SECONDS until the block ends."""
    peaks = Peaks()
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peaks.sample()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _memory(process: psutil.Process) -> tuple[int, int]:
    full = process.memory_full_info()
    return full.pss, full.rss


def _kind(command: list[str]) -> str:
    line = " ".join(command)
    return next((kind for word, kind in KINDS.items() if word in line), "other")
