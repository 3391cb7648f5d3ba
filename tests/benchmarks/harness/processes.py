"""Measure a process with its children: time, private memory, written bytes."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry.errors import StepFailed

SAMPLE_SECONDS = 0.05
# getrusage counts file system output in blocks of this size.
BLOCK_BYTES = 512


@dataclass(frozen=True)
class Usage:
    """Time, memory and writes of a process and its children.

    `private_bytes` is the peak of memory that no other process shares, with mapped files.
    `anonymous_bytes` is the peak of memory that would have to be swapped. `written_bytes` counts
    bytes written to the page cache of a disk, flushed or not.
    """

    seconds: float
    cpu_seconds: float
    private_bytes: int
    anonymous_bytes: int
    written_bytes: int


def measure(command: Sequence[str], *, env: Mapping[str, str], log_path: Path) -> Usage:
    """Run a command to its end and sample its memory every 50 ms. Raises StepFailed if it fails."""
    peak = _Peak()
    with log_path.open("wb") as log:
        started_at = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        sampler = threading.Thread(target=peak.follow, args=(process.pid,))
        sampler.start()
        # Not with Popen.wait, since only wait4 returns the resources of this child.
        _, status, resources = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started_at
    process.returncode = os.waitstatus_to_exitcode(status)
    peak.ended.set()
    sampler.join()
    if process.returncode:
        raise StepFailed(f"{command[0]} ended with {process.returncode}:\n{_tail(log_path)}")
    return Usage(
        seconds=seconds,
        cpu_seconds=resources.ru_utime + resources.ru_stime,
        private_bytes=peak.private_bytes,
        anonymous_bytes=peak.anonymous_bytes,
        written_bytes=resources.ru_oublock * BLOCK_BYTES,
    )


class _Peak:
    """The largest memory of a process tree until `ended` is set."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.private_bytes = self.anonymous_bytes = 0

    def follow(self, pid: int) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            sizes = [_sizes(member) for member in _tree(pid)]
            self.private_bytes = max(self.private_bytes, sum(s[0] for s in sizes))
            self.anonymous_bytes = max(self.anonymous_bytes, sum(s[1] for s in sizes))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                yield from _tree(int(child))


def _sizes(pid: int) -> tuple[int, int]:
    """Return private and anonymous bytes of a process; zeros if it has just ended."""
    private = anonymous = 0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                private += int(line.split()[1])
            elif line.startswith("Anonymous"):
                anonymous += int(line.split()[1])
    return private * 1024, anonymous * 1024


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]
