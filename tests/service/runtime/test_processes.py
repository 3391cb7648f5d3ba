"""A child that dies is started again after growing pauses; a stopped child is not."""

import sys
from pathlib import Path

import psutil
import pytest

from service.runtime import processes
from service.runtime.processes import Child
from tests.service.services import wait_for


def child(tmp_path: Path, program: str) -> Child:
    return Child("part", [sys.executable, "-c", program], env={}, log_path=tmp_path / "log")


def test_a_child_that_dies_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_PAUSE_SECONDS", 0.01)
    part = child(tmp_path, "import time; time.sleep(600)")
    assert part.pid is None
    part.keep_running()
    first = part.pid
    assert first is not None
    part.keep_running()
    assert part.pid == first
    psutil.Process(first).kill()

    def is_another() -> bool:
        part.keep_running()
        return part.pid not in (None, first)

    wait_for(is_another, "another process")
    second = part.pid
    part.stop()
    assert part.pid is None
    assert second is not None
    assert not psutil.pid_exists(second)


def test_pauses_grow_to_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LONGEST_PAUSE_SECONDS", 3.0)
    part = child(tmp_path, "")
    pauses = []
    for _ in range(5):
        part._note_death(1.0, 1)
        pauses.append(part._not_before - 1.0)
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_child_that_lived_long_starts_with_a_short_pause(tmp_path: Path) -> None:
    part = child(tmp_path, "")
    for _ in range(3):
        part._note_death(1.0, 1)
    part._note_death(1.0 + processes.HEALTHY_SECONDS + 1, 1)
    assert part._not_before == pytest.approx(processes.HEALTHY_SECONDS + 2.5)
