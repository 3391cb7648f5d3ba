"""Processes forked from a real server: their output, their end, and that none is left behind.

Covers: forking_launcher, fork_server.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.launch.forking_launcher import ForkedProcess, ForkingLauncher
from engine.launch.launcher import LocalProcess, Process
from tests.engine.launch.test_launcher import all_gone, tree_of, wait_until

MODULE = "tests.engine.launch.forked"
# What the server has imported, and the module does not import.
IMPORTED = "xml.dom.minidom"
OWNER = """
import os, sys
from pathlib import Path
from tests.engine.launch.test_forking_launcher import fork, started
launcher = started(Path(sys.argv[1]))
process = fork(launcher, "wait", Path(sys.argv[2]))
print(launcher.pid, flush=True)
process.wait()
"""


def started(folder: Path) -> ForkingLauncher:
    """Return a launcher whose server listens."""
    launcher = ForkingLauncher([IMPORTED], env=os.environ, log_path=folder / "server.log")
    wait_until(lambda: launcher.is_ready, seconds=60)
    return launcher


def fork(launcher: ForkingLauncher, scenario: str, log: Path) -> Process:
    return launcher.run(
        [sys.executable, "-m", MODULE, scenario], env=dict(os.environ) | {"ONE": "1"}, log_path=log
    )


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[ForkingLauncher]:
    launcher = started(tmp_path)
    yield launcher
    launcher.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "process.log"


def test_a_module_runs_as_python_runs_it(launcher: ForkingLauncher, log: Path) -> None:
    process = fork(launcher, "say", log)
    assert isinstance(process, ForkedProcess)
    assert process.wait(10) == 3
    assert process.poll() == 3
    out, err = log.read_text().splitlines()
    said = json.loads(out)
    assert err == "err"
    assert said["name"] == "__main__"
    assert said["env"] == dict(os.environ) | {"ONE": "1"}
    assert said["input"] == ""
    assert said["session"] not in (os.getsid(0), launcher.pid)
    assert IMPORTED in said["modules"]


def test_a_command_of_another_program_is_not_forked(launcher: ForkingLauncher, log: Path) -> None:
    process = launcher.run(["/bin/echo", "out"], env={}, log_path=log)
    assert isinstance(process, LocalProcess)
    assert process.wait(10) == 0
    assert log.read_text() == "out\n"


def test_before_the_server_listens_a_process_starts_from_nothing(log: Path) -> None:
    launcher = ForkingLauncher([IMPORTED], env=os.environ, log_path=log.with_name("server.log"))
    try:
        process = fork(launcher, "say", log)
        assert isinstance(process, LocalProcess)
        assert process.wait(10) == 3
    finally:
        launcher.close()


def test_a_signal_gives_a_negative_status(launcher: ForkingLauncher, log: Path) -> None:
    assert fork(launcher, "crash", log).wait(10) == -signal.SIGSEGV


def test_lists_of_processes_show_what_runs(launcher: ForkingLauncher, log: Path) -> None:
    fork(launcher, "wait", log)
    pid, _ = tree_of(log)
    assert f"-m {MODULE} wait" in " ".join(psutil.Process(pid).cmdline())


def test_terminate_ends_the_process_and_its_children(launcher: ForkingLauncher, log: Path) -> None:
    process = fork(launcher, "wait", log)
    pids = tree_of(log)
    process.terminate(10)
    assert process.poll() == -signal.SIGTERM
    assert all_gone(pids)


def test_terminate_kills_a_process_that_ignores_it(launcher: ForkingLauncher, log: Path) -> None:
    process = fork(launcher, "stubborn", log)
    pids = tree_of(log)
    process.terminate(0.2)
    assert process.poll() == -signal.SIGKILL
    assert all_gone(pids)


def test_a_killed_guard_ends_its_process(launcher: ForkingLauncher, log: Path) -> None:
    process = fork(launcher, "wait", log)
    child, _ = tree_of(log)
    guard = psutil.Process(child).ppid()
    assert process.name == f"pid {guard}"
    os.kill(guard, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    # Its new parent, the guard of the server, collects its status only at the end.
    wait_until(lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_after_a_killed_server_the_next_process_runs(launcher: ForkingLauncher, log: Path) -> None:
    process = fork(launcher, "wait", log)
    pids = tree_of(log)
    server = psutil.Process(launcher.pid).children()[0]
    server.kill()
    assert process.wait(10) == -signal.SIGKILL
    wait_until(lambda: all_gone([*pids, server.pid]))
    assert fork(launcher, "say", log).wait(10) == 3


def test_everything_dies_with_a_killed_owner(tmp_path: Path, log: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(log)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as owner:
        assert owner.stdout
        pids = [int(owner.stdout.readline()), *tree_of(log)]
        owner.kill()
    wait_until(lambda: all_gone(pids))
