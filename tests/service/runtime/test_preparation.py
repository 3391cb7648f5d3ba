"""Tasks in a child process."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from assembler.jobs import offline_tasks, step_process
from engine.launch.launcher import LocalLauncher, LocalProcess
from registry.errors import StepFailed, Unavailable
from service.runtime import preparation


class Full:
    """A launcher that starts nothing and records the environment."""

    env: Mapping[str, str]

    def run(self, command: list[str], *, env: Mapping[str, str], **_: Any) -> None:
        Full.env = env
        raise Unavailable("no room")


def test_threads_of_the_child_wait_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise they would spin beside a busy process."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(preparation, "LocalLauncher", Full)
    with pytest.raises(Unavailable, match="no room"):
        preparation.run("seed", on_progress=lambda text: None)
    assert Full.env["GOMP_SPINCOUNT"] == str(step_process.SPIN_COUNT)


class Running:
    """A launcher that runs a program in the place of the task."""

    program = ""

    def run(self, command: list[str], **arguments: Any) -> LocalProcess:
        return LocalLauncher().run([sys.executable, "-c", self.program], **arguments)


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import os; os.kill(os.getpid(), 9)", "seed: its process was killed, as a machine does"),
        ("import os; os.kill(os.getpid(), 11)", "seed: its process was ended by signal 11"),
        ("raise SystemExit(3)", "seed: its process ended with status 3, and the log says why"),
        ("""print('{"error": "the disk is full"}'); raise SystemExit(1)""", "the disk is full"),
    ],
)
def test_a_child_that_ends_early_is_explained(
    monkeypatch: pytest.MonkeyPatch, program: str, sentence: str
) -> None:
    monkeypatch.setattr(Running, "program", program)
    monkeypatch.setattr(preparation, "LocalLauncher", Running)
    with pytest.raises(StepFailed, match=sentence):
        preparation.run("seed", on_progress=lambda text: None)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("model.norm.weight"), "KeyError: 'model.norm.weight'"),
        (PermissionError(13, "Permission denied", "/seed"), "Permission denied: '/seed'"),
    ],
)
def test_any_error_of_a_task_becomes_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    sentence: str,
) -> None:
    def fail() -> dict[str, Any]:
        raise error

    monkeypatch.setitem(offline_tasks.COMMANDS, "seed", fail)
    assert offline_tasks.main("seed") == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sentence in last["error"]
