"""Compare the assembly of four experts with mergekit-moe, and the export of the mix with the disk.

Whole processes run in turns. Before each, its input is read into the page cache, and earlier writes
are flushed to the disk. mergekit makes a Mixtral with the FFNs of four experts; everything else is
copied from the seed. Ours makes the default mix, which also has the seed's FFN, from a store. One
run has experts that differ from the seed in every tensor, so that all tensors but FFNs are
averaged; the other has experts that differ only in FFNs. Ours flushes its output, mergekit does
not.
"""

import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from assembler.assembly.inputs import MixInputs
from assembler.jobs import pipeline
from assembler.jobs.step_process import ALLOCATOR
from registry.checkpoints import exports
from registry.errors import OutOfSpace
from registry.settings import settings
from service.demo.bars import Bar
from tests.benchmarks.assembly import llamas, mergekit
from tests.benchmarks.assembly.llamas import Llamas
from tests.benchmarks.harness import processes, reports
from tests.benchmarks.harness.processes import Usage

NAME = "assembly"
PACKAGES = ("nexusmix", "numpy")
PEER, OURS, OURS_FFN = "mergekit-moe", "nexusmix", "nexusmix, only FFNs differ"
# The size that has bars, and the size of `--quick`, which runs without mergekit.
LARGEST, QUICK = "1.1B", "tiny"
MAX_SECONDS, MAX_MEMORY, MAX_WRITTEN = 1 / 5, 1 / 10, 1 / 8
MAX_PRIVATE_MB = 300
MIN_DISK_SHARE = 0.8
BUFFER_BYTES = 8 << 20
# The largest use of the disk, in sizes of one dense checkpoint (measured): the dense checkpoints as
# blobs and as files, the mixes made of them, and the files of the comparison.
CHECKPOINTS_ON_DISK = 14

Run = Callable[[], Usage]


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "assembly against mergekit-moe, export against the disk")
    parser.add_argument("--sizes", nargs="+", choices=llamas.SIZES, default=["56M", "267M", "1.1B"])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = reports.chosen(parser, argv)
    # SIGTERM ends the program like Ctrl-C, so that its large files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sizes, rounds = ([QUICK], 1) if chosen.quick else (chosen.sizes, chosen.rounds)
    peer = None if chosen.quick else mergekit.environment()
    figures = {size: _of_size(size, rounds=rounds, peer=peer) for size in sizes}
    return reports.write(
        chosen.output,
        figures={"peer": mergekit.versions(peer) if peer else None, "sizes": figures},
        bars=_bars(figures[LARGEST]) if LARGEST in figures else [],
        packages=PACKAGES,
    )


def _of_size(size: str, *, rounds: int, peer: Path | None) -> dict[str, Any]:
    root = settings().cache_path / "benchmarks"
    root.mkdir(parents=True, exist_ok=True)
    _check_disk(size, root)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        work = Path(folder)
        reports.say(f"{size}: making random models")
        models = Llamas(size, root=work)
        runs = _runs(models, work=work, peer=peer)
        usages: dict[str, list[Usage]] = {name: [] for name in runs}
        for number in range(1, rounds + 1):
            for name, run in runs.items():
                usages[name].append(run())
                reports.say(f"{size}: {number}/{rounds} {name}: {usages[name][-1].seconds:.2f} s")
        return {
            "parameters": models.architecture.num_parameters,
            "assembly": {name: _summary(measured) for name, measured in usages.items()},
            "export": _export(models, work=work, rounds=rounds),
        }


def _check_disk(size: str, root: Path) -> None:
    """Check the free space of the disk. Raises OutOfSpace."""
    needed = CHECKPOINTS_ON_DISK * 2 * llamas.SIZES[size].num_parameters
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OutOfSpace(
            f"{size} needs {needed / 1e9:.1f} GB below {root}, {free / 1e9:.1f} GB are free"
        )


def _runs(models: Llamas, *, work: Path, peer: Path | None) -> dict[str, Run]:
    """Return the runs that take turns, by name."""
    runs: dict[str, Run] = {}
    if peer is not None:
        folders = models.export(work / "models")
        command = mergekit.command(peer, folders, work=work)
        inputs = [path for folder in folders for path in folder.iterdir()]
        runs[PEER] = partial(_peer_run, command, inputs, work=work)
    for name, experts in ((OURS, models.experts), (OURS_FFN, models.ffn_experts)):
        runs[name] = partial(_our_run, models, models.inputs(experts), work=work)
    return runs


def _peer_run(command: Sequence[str], inputs: Iterable[Path], *, work: Path) -> Usage:
    _settle(inputs)
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        return processes.measure(command, env=env, log_path=work / "log")
    finally:
        shutil.rmtree(work / "merged", ignore_errors=True)


def _our_run(models: Llamas, inputs: MixInputs, *, work: Path) -> Usage:
    llamas.save(inputs, work / "inputs.json")
    before = set(models.blobs.root.glob("*/*"))
    _settle(before)
    module = [sys.executable, "-m", "tests.benchmarks.assembly.assembling"]
    command = [*module, str(models.blobs.root), str(work / "inputs.json")]
    try:
        # The environment is that of a worker's step.
        env = os.environ | ALLOCATOR
        return processes.measure(command, env=env, log_path=work / "log")
    finally:
        for path in set(models.blobs.root.glob("*/*")) - before:
            path.unlink()


def _export(models: Llamas, *, work: Path, rounds: int) -> dict[str, Any]:
    """Measure the MB/s of exporting the mix and of writing zeros of the same size.

    Both are flushed to the disk.
    """
    mix = pipeline.assemble(models.inputs(models.experts), models.blobs)
    num_bytes = sum(exports.file_sizes(mix, models.blobs).values())
    inputs = [models.blobs.local_path(digest) for digest in mix.digests()]

    def export(folder: Path) -> None:
        exports.export(mix, models.blobs, folder, on_bytes=lambda _: None)

    exported: list[float] = []
    plain: list[float] = []
    turns: list[tuple[list[float], Callable[[Path], None]]] = [
        (exported, export),
        (plain, partial(_write_plain, num_bytes)),
    ]
    for _ in range(rounds):
        turns.reverse()
        for speeds, write in turns:
            _settle(inputs)
            # The host of a virtual machine takes free memory back, and returning it takes longer
            # than writing. So before each run as much memory is used once.
            _seconds(partial(_write_plain, num_bytes), work / "unmeasured")
            speeds.append(num_bytes / 1e6 / _seconds(write, work / "written"))
        reports.say(f"export {exported[-1]:.0f} MB/s, plain writing {plain[-1]:.0f} MB/s")
    return {
        "mb": round(num_bytes / 1e6),
        "export_mb_per_second": reports.summary(exported, digits=0),
        "plain_mb_per_second": reports.summary(plain, digits=0),
        "share": round(_median_ratio(exported, plain), 3),
    }


def _write_plain(num_bytes: int, folder: Path) -> None:
    """Write a file of zeros from a small buffer, with one fsync."""
    folder.mkdir()
    buffer = memoryview(bytes(BUFFER_BYTES))
    with (folder / "zeros").open("wb", buffering=0) as file:
        for start in range(0, num_bytes, BUFFER_BYTES):
            file.write(buffer[: num_bytes - start])
        os.fsync(file.fileno())


def _seconds(write: Callable[[Path], None], folder: Path) -> float:
    """Return the seconds of writing a new folder, and remove it."""
    started_at = time.perf_counter()
    write(folder)
    seconds = time.perf_counter() - started_at
    shutil.rmtree(folder)
    return seconds


def _settle(inputs: Iterable[Path]) -> None:
    """Flush all earlier writes to the disk, and read `inputs` into the page cache."""
    os.sync()
    buffer = bytearray(BUFFER_BYTES)
    for path in inputs:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _summary(usages: Sequence[Usage]) -> dict[str, Any]:
    return {
        "seconds": reports.summary([u.seconds for u in usages]),
        "cpu_seconds": reports.summary([u.cpu_seconds for u in usages]),
        "private_mb": reports.summary([u.private_bytes / 1e6 for u in usages], digits=1),
        "anonymous_mb": reports.summary([u.anonymous_bytes / 1e6 for u in usages], digits=1),
        "written_mb": reports.summary([u.written_bytes / 1e6 for u in usages], digits=1),
    }


def _bars(figures: dict[str, Any]) -> list[Bar]:
    """Return the bars of the largest size, for experts that differ in every tensor."""
    ours, peer = figures["assembly"][OURS], figures["assembly"][PEER]

    def share(field: str) -> float:
        return _median_ratio(ours[field]["runs"], peer[field]["runs"])

    return [
        Bar("wall time over mergekit's", share("seconds"), "<=", MAX_SECONDS),
        # Not private memory: mergekit maps its input, which is private too but can be dropped.
        Bar("peak anonymous memory over mergekit's", share("anonymous_mb"), "<=", MAX_MEMORY),
        Bar("bytes written over mergekit's", share("written_mb"), "<=", MAX_WRITTEN),
        Bar("peak private MB", max(ours["private_mb"]["runs"]), "<", MAX_PRIVATE_MB),
        Bar("export over plain writing", figures["export"]["share"], ">=", MIN_DISK_SHARE),
    ]


def _median_ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))
