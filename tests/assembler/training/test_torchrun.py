"""A step of many processes ends as one process would, and listens on loopback only."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def run(what: int) -> "subprocess.CompletedProcess[str]":
    script = ("tests.assembler.torchrun_process", str(what))
    return subprocess.run(
        [sys.executable, "-m", "assembler.training.torchrun", "2", *script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_nothing_listens_beyond_loopback() -> None:
    done = run(1)
    assert done.returncode == 0, done.stderr
    addresses = json.loads(done.stdout)
    # The two processes communicate, so they must listen somewhere.
    assert len(addresses) >= 2
    assert set(addresses) == {"127.0.0.1"}


def test_the_last_line_is_the_error_of_the_failed_process() -> None:
    done = run(2)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert json.loads(last) == {"error": "the second process has a reason"}


def test_a_killed_process_ends_the_step_by_its_signal() -> None:
    assert run(3).returncode == -signal.SIGKILL
