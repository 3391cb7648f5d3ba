"""Processes forked from a real server: their output, their end, and that none is left behind.

Covers: forking_launcher, fork_server.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.launch.forking_launcher import ForkedProcess, ForkingLauncher
from engine.launch.launcher import LocalProcess, Process
from registry.errors import Unavailable
from tests.engine.launch.test_launcher import all_gone, tree_of, wait_until

MODULE = "tests.engine.launch.forked"
# What the server has imported, and the module does not import.
IMPORTED = "xml.dom.minidom"
OWNER = """
import os, sys
from pathlib import Path
from engine.launch import keeping
from tests.engine.launch.test_forking_launcher import fork, started
launcher = started(Path(sys.argv[1]), keeper=keeping.keeper_pid())
process = fork(launcher, "wait", Path(sys.argv[2]))
print(launcher.pid, process.identity is not None, flush=True)
process.wait()
"""
KEEPER = """
import subprocess, sys, time
from engine.launch import keeping
keeping.become_keeper()
owner = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
print(owner.pid, flush=True)
while True:
    keeping.bury([])
    time.sleep(0.05)
"""


def started(folder: Path, *, keeper: int | None = None) -> ForkingLauncher:
    """Return a launcher whose server listens."""
    launcher = ForkingLauncher(
        [IMPORTED], env=os.environ, log_path=folder / "server.log", keeper=keeper
    )
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


def test_a_process_waits_for_the_server(log: Path) -> None:
    launcher = ForkingLauncher(
        [IMPORTED], env=os.environ, log_path=log.with_name("server.log"), wait_seconds=60
    )
    try:
        assert isinstance(fork(launcher, "say", log), ForkedProcess)
    finally:
        launcher.close()


def test_without_what_it_imports_a_process_starts_from_nothing(log: Path) -> None:
    launcher = ForkingLauncher(
        ["no.such.module"], env=os.environ, log_path=log.with_name("server.log"), wait_seconds=60
    )
    try:
        process = fork(launcher, "say", log)
        assert isinstance(process, LocalProcess)
        assert process.wait(10) == 3
    finally:
        launcher.close()


def test_after_its_end_a_launcher_starts_nothing(launcher: ForkingLauncher, log: Path) -> None:
    """A step of an agent that ends may still be about to start an engine."""
    launcher.close()
    with pytest.raises(Unavailable):
        fork(launcher, "say", log)
    assert not log.exists()


def test_placeholders_become_the_address(launcher: ForkingLauncher, log: Path) -> None:
    command = [sys.executable, "-m", MODULE, "say"]
    by_socket = launcher.run([*command, "--uds={socket}"], env=os.environ, log_path=log)
    by_port = launcher.run([*command, "{host}:{port}"], env=os.environ, log_path=log)
    assert (by_socket.wait(10), by_port.wait(10)) == (3, 3)
    lines = [line for line in log.read_text().splitlines() if line != "err"]
    said = sorted(json.loads(line)["arguments"][-1] for line in lines)
    addresses = (by_port.address, by_socket.address)
    assert said[0] == f"--uds={str(by_socket.address).removeprefix('unix:')}", addresses
    assert said[1] == str(by_port.address).removeprefix("http://"), addresses


def test_the_guard_tells_what_it_guards(launcher: ForkingLauncher, log: Path) -> None:
    """Strays and engines to adopt are found by the command line of their guards."""
    fork(launcher, "wait", log)
    guard = psutil.Process(tree_of(log)[0]).parent()
    assert guard is not None
    assert guard.cmdline()[-4:] == [sys.executable, "-m", MODULE, "wait"]
    assert guard.environ() == dict(os.environ) | {"ONE": "1"}


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
    with run_python(OWNER, str(tmp_path), str(log)) as owner:
        assert owner.stdout
        server, has_identity = owner.stdout.readline().split()
        assert has_identity == b"False"
        pids = [int(server), *tree_of(log)]
        owner.kill()
    wait_until(lambda: all_gone(pids))


def test_a_keeper_inherits_a_process(tmp_path: Path, log: Path) -> None:
    with run_python(KEEPER, OWNER, str(tmp_path), str(log)) as keeper:
        assert keeper.stdout
        owner, (server, has_identity) = keeper.stdout.readline(), keeper.stdout.readline().split()
        assert has_identity == b"True"
        pids = tree_of(log)
        os.kill(int(owner), signal.SIGKILL)
        wait_until(lambda: all_gone([int(server)]))
        guard = psutil.Process(pids[0]).parent()
        assert guard is not None
        wait_until(lambda: guard.ppid() == keeper.pid)
        assert not any(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in pids)
        keeper.kill()
    wait_until(lambda: all_gone(pids))


@contextmanager
def run_python(code: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run Python code until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        try:
            yield process
        finally:
            process.kill()
