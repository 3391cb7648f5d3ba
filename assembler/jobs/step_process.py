"""Run one step of a job as a child process: watch it, stop it with its job, read its error.

Steps are forked from a process that has imported what they need, unless the setting `preload` is
off. The worker itself stays small and alive whatever torch does. A step and all its processes end
with the worker, and before another worker may take over, so a step does not run twice at the same
time.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from assembler.jobs import lease_clock, step_errors
from assembler.jobs.step_errors import Killed, Kind, TransientFailure
from assembler.mixes import job_events
from assembler.training.parallelism import num_threads
from engine.launch import launchers
from engine.launch.forking_launcher import ForkingLauncher
from engine.launch.launcher import Process, Resources
from engine.threads import spin_count_variables
from registry.errors import Unavailable
from registry.settings import settings

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
MAX_TAIL_BYTES = 4096
# How often a thread of libgomp polls for work before it sleeps. With the default of 300,000, two
# steps side by side, of two threads each on two cores, take time from each other: 35 to 70 s each
# instead of 26 s (SmolLM2-135M reading 6,144 tokens). A training alone is as fast with either.
SPIN_COUNT = 10_000
# Freed memory stays with the process. By default glibc returns large tensors to the kernel and gets
# cleared pages for the next ones. Then a step of a finetune of all parameters took 1.5 s instead of
# 1.1 s, of routers 0.58 s instead of 0.52 s, and torch's huge pages 7 GB instead of 4 GB (the shape
# of `bench finetune`, bfloat16, two cores). With huge pages of glibc, routers take 5 % less again;
# the first step of a finetune of all parameters takes 3 s more, to clear 4 GB of them.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

# What steps import, apart from downloads of checkpoints: together 5 s of CPU time.
PRELOADED = (
    "assembler.jobs.pipeline",
    "assembler.jobs.checkpoint_checks",
    "assembler.evaluation.construction",
    "assembler.evaluation.mix_gate",
    "assembler.evaluation.seed_check",
    "assembler.network.base_decoder",
    "assembler.routing.projection",
    "assembler.routing.text_encoder",
)

# Set when the worker must stop. Running steps then end without an outcome, and continue later.
STOPPING = threading.Event()


# Forks steps, while the block of `preloaded` runs.
_forking: ForkingLauncher | None = None


class WorkerStopping(BaseException):
    """Ends a step without an outcome. An Exception would be recorded as the outcome."""


class Cancelled(Exception):
    """The job ended while its step was running."""


@contextmanager
def preloaded() -> Iterator[None]:
    """Fork steps from a process with their imports, until the block ends.

    Does nothing where the settings say so, or steps run on a cluster. A preloaded process must not
    have used a card: asking for one by NVML leaves CUDA alone.
    """
    global _forking
    if not settings().preload or settings().launcher != "local":
        yield
        return
    _forking = ForkingLauncher(
        PRELOADED,
        env={"PYTORCH_NVML_BASED_CUDA_CHECK": "1"} | environment(),
        log_path=settings().home / "logs" / "preloaded.log",
    )
    try:
        yield
    finally:
        _forking.close()
        _forking = None


def run(
    step: str,
    target_id: int,
    *,
    job_id: str,
    cancelled: Callable[[], bool],
    num_processes: int = 1,
) -> None:
    """Run `python -m assembler.jobs.step_main STEP TARGET_ID` once, as one process or as many.

    Raises Cancelled soon after `cancelled()` turns true, WorkerStopping, and with the child's own
    message StepFailed, or one of its kinds in `assembler.jobs.step_errors`.
    """
    log_path = job_events.log_path(job_id, step)
    if settings().launcher == "ray":
        # A step that needs more processes asks the cluster; see `assembler.training.ray_train`.
        num_processes = 1
    torchrun = ["assembler.training.torchrun", str(num_processes)] if num_processes > 1 else []
    command = [sys.executable, "-m", *torchrun, "assembler.jobs.step_main", step, str(target_id)]
    process = _start(command, log_path, step=step, num_processes=num_processes)
    log.info("step started", step=step, job_id=job_id, process=process.name)
    status = _watch(process, cancelled, step=step)
    log.info("step ended", step=step, job_id=job_id, status=status)
    if status < 0:
        raise Killed(
            f"{step}: its process was killed by signal {-status};"
            " the machine may be short of memory"
        )
    if status > 0:
        error = step_errors.ERRORS[step_errors.KINDS.get(status, Kind.PERMANENT)]
        raise error(f"{step}: {_reason(status, log_path)}")


def _start(command: list[str], log_path: Path, *, step: str, num_processes: int) -> Process:
    # A finetune on a cluster only waits for its training processes, which reserve their own CPUs.
    resources = Resources(num_cpus=0 if step == "finetune" else num_threads())
    try:
        launcher = _forking or launchers.configured()
        return launcher.run(
            command, env=environment(num_processes), log_path=log_path, resources=resources
        )
    except (Unavailable, OSError) as error:
        kind = step_errors.ERRORS[step_errors.kind_of(error)]
        raise kind(f"{step}: {step_errors.describe(error)}") from error


def _watch(process: Process, cancelled: Callable[[], bool], *, step: str) -> int:
    with _asking(cancelled) as is_cancelled:
        while (status := process.poll()) is None:
            if STOPPING.is_set():
                process.terminate(GRACE_SECONDS)
                raise WorkerStopping
            if is_cancelled.is_set():
                process.terminate(GRACE_SECONDS)
                raise Cancelled
            if lease_clock.is_stale():
                process.terminate(lease_clock.STOP_SECONDS)
                raise TransientFailure(
                    f"{step}: stopped, since the worker was cut off from the database for"
                    f" {lease_clock.STALE_SECONDS:.0f} s"
                )
            time.sleep(POLL_SECONDS)
        return status


@contextmanager
def _asking(cancelled: Callable[[], bool]) -> Iterator[threading.Event]:
    """Yield an event that is set when `cancelled()` turns true.

    It is called in a thread of its own, since a question to the database may hang.
    """
    happened, ended = threading.Event(), threading.Event()

    def ask() -> None:
        while not ended.wait(POLL_SECONDS):
            try:
                if cancelled():
                    return happened.set()
            except Exception:
                # Without an answer the step goes on; a lease that is not renewed ends it.
                log.exception("cannot tell whether the job was cancelled")

    threading.Thread(target=ask, daemon=True, name="cancellation").start()
    try:
        yield happened
    finally:
        ended.set()


def environment(num_processes: int = 1) -> dict[str, str]:
    """Return the environment of a computing process: threads, their polling, the allocator."""
    ours = {"OMP_NUM_THREADS": str(num_threads(num_processes))}
    return ALLOCATOR | spin_count_variables(SPIN_COUNT, os.environ) | os.environ | ours


def _reason(status: int, log_path: Path) -> str:
    if status == step_errors.OUTPUT_LOST:
        return "its output could not be written, the disk may be full"
    with log_path.open("rb") as file:
        file.seek(max(0, log_path.stat().st_size - MAX_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    last = lines[-1] if lines else ""
    try:
        return str(json.loads(last)["error"])
    except (ValueError, KeyError, TypeError):
        return f"its process ended with status {status}: {last} (all of it: {log_path})"
