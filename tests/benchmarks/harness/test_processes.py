"""Time, memory and written bytes are measured of a process that uses known amounts."""

import os
import sys
from pathlib import Path

import pytest

from registry.errors import StepFailed
from tests.benchmarks.harness import processes

# The work happens in a child, so that the whole tree must be measured.
HUNGRY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import os, time
held = bytearray(os.urandom(50_000_000))
with open("written", "wb") as file:
    file.write(held[:20_000_000])
time.sleep(0.3)
'''], check=True)
"""


def test_a_tree_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    used = processes.measure(
        [sys.executable, "-c", HUNGRY], env=os.environ, log_path=tmp_path / "log"
    )
    assert 0.3 < used.seconds < 30
    assert 0 < used.cpu_seconds < used.seconds * (os.cpu_count() or 1)
    assert 50e6 < used.anonymous_bytes <= used.private_bytes < 300e6
    assert 20e6 <= used.written_bytes < 21e6


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no space')"]
    with pytest.raises(StepFailed, match="no space"):
        processes.measure(command, env=os.environ, log_path=tmp_path / "log")
