"""Real process trees: how they end, and that no process is left behind.

Covers: launchers, process_guard.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine.launch import launchers
from engine.launch.launcher import LocalLauncher, LocalProcess
from registry import settings
from registry.errors import Unavailable

# A process that starts a grandchild in its own session, prints both process ids, and waits.
TREE = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(1000)
"""
IGNORE_SIGTERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
LAUNCH = """
import os, sys, time
from pathlib import Path
from engine.launch.launcher import LocalLauncher
process = LocalLauncher().run([sys.executable, "-c", sys.argv[2]], env=os.environ,
                              log_path=Path(sys.argv[1]))
print(process.pid, flush=True)
process.wait()
"""

Run = Callable[..., LocalProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "process.log"


@pytest.fixture
def run(log: Path) -> Iterator[Run]:
    started: list[LocalProcess] = []

    def start(*command: str) -> LocalProcess:
        started.append(LocalLauncher().run(command, env=os.environ, log_path=log))
        return started[-1]

    yield start
    for process in started:
        process.terminate(0)


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def wait_until(condition: Callable[[], bool], *, seconds: int = 10) -> None:
    """Wait up to `seconds` for a condition."""
    this_process = psutil.Process()
    for _ in range(100 * seconds):
        if condition():
            return
        with pytest.raises(psutil.TimeoutExpired):
            this_process.wait(0.01)
    raise AssertionError("the condition was not met in time")


def tree_of(log: Path, *, seconds: int = 10) -> list[int]:
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"), seconds=seconds)
    return [int(pid) for pid in log.read_text().split()]


def all_gone(pids: list[int]) -> bool:
    return not any(map(psutil.pid_exists, pids))


def test_status_and_output_come_back(run: Run, log: Path) -> None:
    process = run(*python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert process.wait(10) == 3
    assert process.poll() == 3
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_a_signal_gives_a_negative_status(run: Run) -> None:
    process = run(*python("import os; os.kill(os.getpid(), 11)"))
    assert process.wait(10) == -signal.SIGSEGV


def test_the_environment_is_the_given_one(log: Path) -> None:
    process = LocalLauncher().run(["/usr/bin/env"], env={"ONE": "1"}, log_path=log)
    assert process.wait(10) == 0
    assert "ONE=1\n" in log.read_text()
    assert "HOME=" not in log.read_text()


def test_placeholders_become_the_address(run: Run, log: Path) -> None:
    process = run("/bin/echo", "--listen={host}:{port}")
    assert process.wait(10) == 0
    assert log.read_text() == f"--listen={str(process.address).removeprefix('http://')}\n"
    assert process.address.startswith("http://127.0.0.1:")


def test_an_unknown_command_is_reported(run: Run, log: Path) -> None:
    assert run("/no/such/program").wait(10) == 127
    assert "cannot run /no/such/program" in log.read_text()


def test_terminate_lets_a_process_finish(run: Run, log: Path) -> None:
    process = run(
        *python(
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
            "print(flush=True); time.sleep(1000)"
        )
    )
    wait_until(lambda: log.exists() and log.read_text() == "\n")
    process.terminate(10)
    assert process.poll() == 7


def test_terminate_kills_processes_that_ignore_sigterm(run: Run, log: Path) -> None:
    process = run(*python(IGNORE_SIGTERM + TREE))
    pids = tree_of(log)
    process.terminate(0.2)
    assert process.poll() == -signal.SIGKILL
    assert all_gone(pids)


def test_grandchildren_die_with_a_killed_process(run: Run, log: Path) -> None:
    process = run(*python(TREE))
    child, grandchild = tree_of(log)
    os.kill(child, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert all_gone([child, grandchild])


def test_grandchildren_die_when_terminated(run: Run, log: Path) -> None:
    process = run(*python(TREE))
    pids = tree_of(log)
    process.terminate(10)
    assert all_gone(pids)


def test_the_launcher_is_chosen_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(launchers.configured(), LocalLauncher)
    settings.settings.cache_clear()
    monkeypatch.setenv("NEXUSMIX_LAUNCHER", "ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "engine.launch.ray_launcher", raising=False)
    with pytest.raises(Unavailable, match="NEXUSMIX_LAUNCHER is ray, but import of ray"):
        launchers.configured()


def test_everything_dies_with_a_killed_launcher(log: Path) -> None:
    with subprocess.Popen(
        [*python(LAUNCH), str(log), TREE], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as launcher:
        assert launcher.stdout
        guard = int(launcher.stdout.readline())
        pids = [guard, *tree_of(log)]
        launcher.kill()
    wait_until(lambda: all_gone(pids))


def test_the_process_dies_with_a_killed_guard(run: Run, log: Path) -> None:
    process = run(*python("import os, time; print(os.getpid(), flush=True); time.sleep(1000)"))
    run_pids = tree_of(log)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    wait_until(lambda: all_gone(run_pids))
