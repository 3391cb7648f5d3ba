"""The process of a step reports its error, and ends when it is cancelled."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from assembler.jobs import lease_clock, step_process
from assembler.jobs.step_errors import OUTPUT_LOST, Killed, Kind, TransientFailure
from engine.launch import launchers
from registry.errors import StepFailed, Unavailable
from registry.settings import settings
from tests.engine.launch.test_launcher import wait_until


class Full:
    """A launcher without free capacity; it records the environment of the process."""

    def run(self, command: list[str], *, env: Mapping[str, str], **_: Any) -> None:
        self.env = env
        raise Unavailable("no room")


class Ended:
    """A launcher whose process has ended at once with a status and this output."""

    def __init__(self, status: int, output: str = "") -> None:
        self.status, self.output = status, output
        self.name, self.address = "ended", None

    def run(self, command: list[str], *, log_path: Path, **_: Any) -> "Ended":
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_text(self.output)
        return self

    def poll(self) -> int:
        return self.status


def failure(monkeypatch: pytest.MonkeyPatch, launcher: Ended) -> StepFailed:
    """Return the error of a step whose process has ended."""
    monkeypatch.setattr(launchers, "configured", lambda: launcher)
    with pytest.raises(StepFailed) as caught:
        step_process.run("gate", 1, job_id="job", cancelled=lambda: False)
    return caught.value


def environment(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Return the environment in which a step is started."""
    full = Full()
    monkeypatch.setattr(launchers, "configured", lambda: full)
    with pytest.raises(StepFailed, match="no room"):
        step_process.run("assemble", 1, job_id="job", cancelled=lambda: False)
    return full.env


def test_the_last_line_of_a_step_is_its_error() -> None:
    with pytest.raises(StepFailed, match="no-such-step: KeyError: 'no-such-step'"):
        step_process.run("no-such-step", 1, job_id="job", cancelled=lambda: False)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (1, StepFailed),
        (2, StepFailed),
        (Kind.TRANSIENT, TransientFailure),
        (Kind.DEADLY, Killed),
        (-9, Killed),
        (OUTPUT_LOST, TransientFailure),
    ],
)
def test_the_status_of_a_step_says_what_becomes_of_it(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[StepFailed]
) -> None:
    error = failure(monkeypatch, Ended(status, '{"error": "no space left"}\n'))
    assert type(error) is kind
    assert error.detail.startswith("gate: ")


def test_a_step_without_room_for_a_process_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "configured", Full)
    with pytest.raises(TransientFailure, match="no room"):
        step_process.run("gate", 1, job_id="job", cancelled=lambda: False)


def test_a_cancelled_step_is_stopped() -> None:
    with pytest.raises(step_process.Cancelled):
        step_process.run("assemble", 1, job_id="job", cancelled=lambda: True)


def test_a_step_stops_when_the_lease_of_its_worker_is_stale() -> None:
    lease_clock.renewed(time.monotonic() - lease_clock.STALE_SECONDS - 1)
    try:
        with pytest.raises(TransientFailure, match="cut off from the database"):
            step_process.run("assemble", 1, job_id="job", cancelled=lambda: False)
    finally:
        lease_clock.forget()


def test_a_question_that_hangs_does_not_keep_a_step_from_ending() -> None:
    hanging = threading.Event()

    def ask() -> bool:
        hanging.wait()
        return False

    try:
        with pytest.raises(StepFailed, match="no-such-step"):
            step_process.run("no-such-step", 1, job_id="job", cancelled=ask)
    finally:
        hanging.set()


@pytest.mark.parametrize(
    ("policy", "count"), [(None, str(step_process.SPIN_COUNT)), ("PASSIVE", None)]
)
def test_a_chosen_thread_policy_is_kept(
    monkeypatch: pytest.MonkeyPatch, policy: str | None, count: str | None
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    env = environment(monkeypatch)
    assert env.get("GOMP_SPINCOUNT") == count
    assert env.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize(
    ("chosen", "expected"), [(None, step_process.ALLOCATOR["MALLOC_TRIM_THRESHOLD_"]), ("1", "1")]
)
def test_a_step_keeps_freed_memory_by_default(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: str
) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if chosen is not None:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", chosen)
    env = environment(monkeypatch)
    assert env["MALLOC_TRIM_THRESHOLD_"] == expected


def test_a_preloaded_step_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_PRELOAD", "true")
    monkeypatch.setattr(step_process, "PRELOADED", ("assembler.jobs.step_errors",))
    settings.cache_clear()
    with step_process.preloaded():
        launcher = step_process._forking
        assert launcher is not None
        wait_until(lambda: launcher.is_ready, seconds=60)
        server = psutil.Process(launcher.pid)
        with pytest.raises(StepFailed, match="no-such-step: KeyError: 'no-such-step'"):
            step_process.run("no-such-step", 1, job_id="job", cancelled=lambda: False)
    assert not server.is_running()
    assert step_process._forking is None


@pytest.mark.slow
def test_what_is_preloaded_starts_no_threads() -> None:
    code = f"""
import importlib, os
for name in {step_process.PRELOADED}:
    importlib.import_module(name)
print(len(os.listdir("/proc/self/task")))
"""
    # OpenBLAS starts one thread for each further core. It stops them before a fork.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) == 1
