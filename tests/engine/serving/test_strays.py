"""An engine that its agent could not write down ends when the next agent begins."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from engine.launch import keeping
from engine.launch.launcher import LocalLauncher
from engine.serving import strays


def test_an_engine_that_nobody_knows_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process stands for the keeper."""
    monkeypatch.setattr(keeping, "keeper_pid", os.getpid)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    engines = [
        LocalLauncher().run([*command, word], env=os.environ, log_path=tmp_path / "log")
        for word in (strays.ENTRY, strays.ENTRY, "something else")
    ]
    stray, known, other = engines
    strays.end({known.pid})
    assert [engine.poll() is None for engine in (stray, known, other)] == [False, True, True]
    for engine in engines:
        engine.terminate(0)


def test_without_a_keeper_there_are_no_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keeping.VARIABLE, raising=False)
    strays.end(set())
    assert keeping.keeper_pid() is None


def test_only_a_process_above_is_a_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keeping.VARIABLE, str(os.getppid()))
    assert keeping.keeper_pid() == os.getppid()
    monkeypatch.setenv(keeping.VARIABLE, str(psutil.Process().pid))
    assert keeping.keeper_pid() is None
