"""Engines outlive a killed agent, the next agent adopts them, and all end with the keeper."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.launch.launcher import LocalLauncher, LocalProcess
from engine.serving.tables import Deployment
from tests.engine.serving.keeper_process import STAND_IN
from tests.engine.stand_in_agents import State, read, request
from tests.service.services import wait_for

BURY = """
import subprocess, sys, time
import psutil
from engine.launch import keeping
own, inherited = subprocess.Popen(["true"]), subprocess.Popen(["true"])
for child in (own, inherited):
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
keeping.bury([own.pid])
assert own.wait() == 0
keeping.bury([])
assert not psutil.pid_exists(inherited.pid)
keeping.bury([])
"""


def test_inherited_processes_that_have_ended_are_buried() -> None:
    """In a process of its own: the children of this one are other tests'."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", BURY], check=True)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STAND_IN, "1")


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_PRELOAD", "true")


@pytest.fixture
def keeper(database: str, tmp_path: Path) -> Iterator[LocalProcess]:
    process = LocalLauncher().run(
        [sys.executable, "-m", "tests.engine.serving.keeper_process", str(tmp_path)],
        env=os.environ,
        log_path=tmp_path / "keeper.log",
    )
    yield process
    process.terminate(0)


def serve(folder: Path) -> tuple[int, Deployment]:
    """Return a deployment that is ready."""
    deployment_id = request("m")
    wait_for(
        lambda: read(deployment_id).state is State.READY, "the engine", log=folder / "agent.log"
    )
    return deployment_id, read(deployment_id)


def kill_agent(folder: Path) -> None:
    """Kill the agent, and wait until the next one has looked at its servers."""
    log = folder / "agent.log"
    seen = log.read_text().count("server adopted")
    psutil.Process(int((folder / "agent").read_text())).kill()
    wait_for(lambda: log.read_text().count("server adopted") > seen, "the adoption", log=log)


def check_adoption(keeper: LocalProcess, folder: Path) -> None:
    deployment_id, before = serve(folder)
    kill_agent(folder)
    after = read(deployment_id)
    assert (after.state, after.num_starts) == (State.READY, 1)
    assert (after.pid, after.address) == (before.pid, before.address)
    assert before.pid is not None
    engine = psutil.Process(before.pid)
    processes = [engine, *engine.children(recursive=True)]
    keeper.terminate(0)
    psutil.wait_procs(processes, timeout=30)
    assert not any(process.is_running() for process in processes)


@pytest.mark.usefixtures("stand_ins")
def test_an_engine_outlives_its_agent_but_not_the_keeper(
    keeper: LocalProcess, tmp_path: Path
) -> None:
    check_adoption(keeper, tmp_path)


@pytest.mark.slow  # it loads vLLM
def test_vllm_outlives_its_agent_but_not_the_keeper(keeper: LocalProcess, tmp_path: Path) -> None:
    check_adoption(keeper, tmp_path)


@pytest.mark.slow  # it loads vLLM
@pytest.mark.usefixtures("preloaded")
def test_a_forked_vllm_outlives_its_agent_but_not_the_keeper(
    keeper: LocalProcess, tmp_path: Path
) -> None:
    check_adoption(keeper, tmp_path)
