"""Real process trees on a real cluster: how they end, and that no process is left behind."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine.launch import launchers
from engine.launch.launcher import Resources
from engine.launch.ray_launcher import RayLauncher, RayProcess
from tests import ray_cluster as clusters
from tests.engine.launch.test_launcher import (
    IGNORE_SIGTERM,
    TREE,
    all_gone,
    python,
    tree_of,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

LAUNCH = """
import os, sys
from pathlib import Path
from engine.launch import launchers
process = launchers.configured().run([sys.executable, "-c", sys.argv[2]], env=os.environ,
                                    log_path=Path(sys.argv[1]))
process.wait()
"""

# Time for Ray to start a process on a busy machine.
PATIENCE_SECONDS = 120

Run = Callable[..., RayProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "process.log"


@pytest.fixture
def run(log: Path) -> Iterator[Run]:
    started: list[RayProcess] = []

    def start(*command: str, **env: str) -> RayProcess:
        launcher = launchers.configured()
        assert isinstance(launcher, RayLauncher)
        environment = {"PATH": os.environ["PATH"], **env}
        started.append(launcher.run(command, env=environment, log_path=log))
        return started[-1]

    yield start
    for process in started:
        process.terminate(0)


def test_the_cluster_has_no_network_but_loopback() -> None:
    interfaces = {name for _, name in socket.if_nameindex()}
    assert interfaces == {"lo"}
    # Threads older than the cluster are in the outer network namespace and cannot reach it.
    with socket.socket() as inside:
        assert inside.connect_ex(("127.0.0.1", clusters.PORT)) == 0


def test_status_and_output_come_back(run: Run, log: Path) -> None:
    process = run(*python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert process.wait(PATIENCE_SECONDS) == 3
    assert process.poll() == 3
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_a_signal_gives_a_negative_status(run: Run) -> None:
    process = run(*python("import os; os.kill(os.getpid(), 11)"))
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGSEGV


def test_the_environment_is_the_given_one(run: Run, log: Path) -> None:
    assert run("/usr/bin/env", ONE="1").wait(PATIENCE_SECONDS) == 0
    names = {line.partition("=")[0] for line in log.read_text().splitlines()}
    assert names == {"PATH", "ONE", "CUDA_VISIBLE_DEVICES", "LC_CTYPE"}


def test_placeholders_become_the_address(run: Run, log: Path) -> None:
    process = run("/bin/echo", "--listen={host}:{port}")
    assert process.wait(PATIENCE_SECONDS) == 0
    assert log.read_text() == f"--listen={str(process.address).removeprefix('http://')}\n"
    assert str(process.address).startswith("http://127.0.0.1:")


def test_much_output_arrives_whole(run: Run, log: Path) -> None:
    assert run(*python("print('0123456789' * 500_000)")).wait(PATIENCE_SECONDS) == 0
    assert log.stat().st_size == 5_000_001


def test_an_unknown_command_is_reported(run: Run, log: Path) -> None:
    assert run("/no/such/program").wait(PATIENCE_SECONDS) == 127
    assert "cannot run /no/such/program" in log.read_text()


def test_terminate_lets_a_process_finish(run: Run, log: Path) -> None:
    process = run(
        *python(
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
            "print(flush=True); time.sleep(1000)"
        )
    )
    wait_until(lambda: log.read_text() == "\n", seconds=PATIENCE_SECONDS)
    process.terminate(10)
    assert process.poll() == 7


def test_terminate_kills_the_whole_tree(run: Run, log: Path) -> None:
    process = run(*python(IGNORE_SIGTERM + TREE))
    pids = tree_of(log, seconds=PATIENCE_SECONDS)
    process.terminate(0.2)
    assert process.poll() == -signal.SIGKILL
    assert all_gone(pids)


def test_a_process_without_room_waits_and_can_be_ended(log: Path) -> None:
    process = RayLauncher().run(
        ["/bin/true"], env={}, log_path=log, resources=Resources(num_gpus=1)
    )
    assert process.wait(1) is None
    assert process.address is None
    process.terminate(10)
    assert process.poll() == -signal.SIGKILL


def test_a_lost_actor_counts_as_a_killed_process(run: Run, log: Path) -> None:
    process = run(*python(TREE))
    pids = tree_of(log, seconds=PATIENCE_SECONDS)
    [actor] = [parent for parent in psutil.Process(pids[0]).parents() if "ray::" in parent.name()]
    actor.kill()
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    wait_until(lambda: all_gone(pids))
    assert "its Ray actor was lost" in log.read_text()


def test_everything_dies_with_a_killed_caller(log: Path) -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen([*python(LAUNCH), str(log), TREE], cwd=root) as caller:
        try:
            pids = tree_of(log, seconds=PATIENCE_SECONDS)
        finally:
            caller.kill()
    wait_until(lambda: all_gone(pids))
