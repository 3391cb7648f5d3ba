"""Measure how long the registration of an expert takes, by stage, and what each process computes.

A service of its own registers the demo's expert of German manuals in the demo's family. Each round
registers it as another expert, and its tensors are sent every time. Nothing else should be running:
the stages are wall-clock time. The seconds of CPU time depend less on the neighbors.
"""

import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from assembler.demo import seed_folders, seeds
from assembler.demo.corpora.domains import EXPERT_DOMAINS, fetch
from assembler.demo.corpora.public_texts import DOCUMENTS_PER_DOMAIN
from assembler.jobs import job_ids
from assembler.mixes import job_events
from assembler.training import expert_training
from assembler.training.expert_training import ExpertTraining
from engine.launch.launcher import LocalLauncher
from registry.catalog import experts
from registry.checkpoints.file_names import TENSORS
from registry.checkpoints.safetensors_header import read_header
from registry.database import db
from registry.settings import settings
from service.client.client import Client
from service.client.transfers import Transfer
from service.demo.bars import Bar
from service.demo.demo_family import EXPERT_TRAINING
from service.schemas.experts import VersionBody
from tests import tiny
from tests.benchmarks.harness import reports, web_process

NAME = "registration"
PACKAGES = ("nexusmix", "torch", "transformers", "tokenizers")
LICENSE = "Apache-2.0"
FAMILY = "measured"
MOST_SECONDS = 8.0
STOP_SECONDS = 20.0
# Parts of the command lines of the processes of a service.
PROCESSES = {"web": "service.app:create_alone", "worker": "assembler.jobs.worker"}

# Seconds by stage or by process.
Seconds = dict[str, float]


@dataclass(frozen=True)
class Checkpoints:
    """Folders of a seed and of an expert that branched from it."""

    seed: Path
    expert: Path


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "seconds of a registration by stage and process")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = reports.chosen(parser, argv)
    rounds = 1 if chosen.quick else chosen.rounds
    with TemporaryDirectory(prefix="nexusmix-registration-") as scratch:
        made = _tiny(Path(scratch)) if chosen.quick else _of_the_demo()
        with _service() as client:
            _register_family(client, made.seed)
            measured = [
                _measure(client, _other_expert(made.expert, Path(scratch), number), number)
                for number in range(rounds)
            ]
    totals = [sum(stages.values()) for stages, _ in measured]
    figures: dict[str, Any] = {
        "rounds": rounds,
        "megabytes": round((made.expert / TENSORS).stat().st_size / 1e6, 1),
        "seconds": reports.summary(totals),
        "stages": _summaries([stages for stages, _ in measured]),
        "cpu_seconds": _summaries([used for _, used in measured]),
    }
    bars = [Bar("seconds of a registration", figures["seconds"]["median"], "<=", MOST_SECONDS)]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


def _of_the_demo() -> Checkpoints:
    """Return the demo's seed and its first expert, from the cache if they were made before.

    Raises Unavailable when texts or the seed cannot be fetched.
    """
    domain = EXPERT_DOMAINS[0]
    texts = fetch([domain], limit=DOCUMENTS_PER_DOMAIN, on_progress=reports.say)
    seed = seed_folders.unpacked(seeds.DEFAULT)
    expert = expert_training.train_expert(
        seed,
        texts[domain.name],
        training=ExpertTraining.model_validate(EXPERT_TRAINING),
        on_progress=lambda _: None,
    )
    return Checkpoints(seed, expert)


def _tiny(folder: Path) -> Checkpoints:
    return Checkpoints(
        tiny.write_checkpoint(folder / "seed"), tiny.write_checkpoint(folder / "expert", expert=1)
    )


def _other_expert(expert: Path, folder: Path, number: int) -> Path:
    """Return a copy of an expert in which the first number of every FFN tensor is another.

    So none of them is stored already, and nearly the same network is embedded.
    """
    copy = folder / f"expert-{number}"
    shutil.copytree(expert, copy)
    data = np.memmap(copy / TENSORS, np.uint8, mode="r+")
    for name, span in read_header(copy / TENSORS).items():
        if ".mlp." in name:
            # The lowest bits of its mantissa.
            data[span.start] = (int(data[span.start]) + number + 1) % 256
    data.flush()
    return copy


@contextmanager
def _service() -> Iterator[Client]:
    """Run a web process and a worker until the block ends."""
    with web_process.running() as web:
        worker = LocalLauncher().run(
            [sys.executable, "-m", "assembler.jobs.worker"],
            env=os.environ,
            log_path=settings().home / "worker.log",
        )
        try:
            with Client(web.address, key=web.keys[0]) as client:
                yield client
        finally:
            worker.terminate(STOP_SECONDS)


def _register_family(client: Client, seed: Path) -> None:
    family = client.register_family(seed, name=FAMILY, license=LICENSE)
    client.wait_for_family(family, on_wait=reports.say)


def _measure(client: Client, folder: Path, number: int) -> tuple[Seconds, Seconds]:
    """Register an expert; return the seconds of each stage, and the CPU time of each process."""
    times, used = [time.time()], _cpu_seconds()

    def on_transfer(transfer: Transfer) -> None:
        if len(times) == 1:
            times.append(time.time())

    version = client.register_expert(
        folder,
        name=f"expert-of-round-{number}",
        family=FAMILY,
        license=LICENSE,
        on_transfer=on_transfer,
    )
    times.append(time.time())
    client.wait_for_embedding(version)
    times += [*_step_times(version), time.time()]
    names = (
        "reading the folder",
        "sending",
        "waiting for the check",
        "checking",
        "waiting for the embedding",
        "embedding",
        "hearing of it",
    )
    stages = {
        name: end - begin for name, begin, end in zip(names, times[:-1], times[1:], strict=True)
    }
    reports.say(f"round {number + 1}: {times[-1] - times[0]:.1f} s")
    return stages, {name: seconds - used[name] for name, seconds in _cpu_seconds().items()}


def _step_times(version: VersionBody) -> list[float]:
    """Return when the check began and ended, then the same of the embedding."""
    with db.transaction() as session:
        row = experts.find_version(session, expert=version.expert, number=version.version)
        return [
            event.created_at.timestamp()
            for job_id in (job_ids.of_check(row), job_ids.of_embedding(row))
            for event in job_events.milestones(session, job_id)
            if event.data.get("phase") in ("began", "ended")
        ]


def _cpu_seconds() -> Seconds:
    """Return the CPU time of each process so far; `steps` are what the worker has started."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    found = {"client": own.ru_utime + own.ru_stime, "web": 0.0, "worker": 0.0, "steps": 0.0}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            command, times = process.cmdline(), process.cpu_times()
            for name, part in PROCESSES.items():
                # Not the process guard, which has the same words behind its own.
                if part in command and "-I" not in command:
                    found[name] += times.user + times.system
            if PROCESSES["worker"] in command and "-I" not in command:
                found["steps"] += times.children_user + times.children_system
                found["steps"] += sum(map(_total, process.children(recursive=True)))
    return found


def _total(process: psutil.Process) -> float:
    """Return the CPU time of a process, and of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _summaries(runs: Sequence[Seconds]) -> dict[str, Any]:
    return {name: reports.summary([run[name] for run in runs]) for name in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
