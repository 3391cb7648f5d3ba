"""The agent matches real processes to rows of a real database; a stand-in replaces vLLM."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from engine.launch.launcher import LocalLauncher, LocalProcess, Resources
from engine.serving import agent as agents
from engine.serving import deployments, pulse
from engine.serving.agent import Agent
from engine.serving.tables import Deployment, DeploymentState
from registry import settings
from registry.blobs import blob_stores
from registry.database import connections, db
from registry.errors import Unavailable
from tests.engine.factories import make_artifact

STAND_IN = Path(__file__).parents[1] / "stand_in.py"
State = DeploymentState


class StandInLauncher:
    """Starts the stand-in server where the agent starts vLLM, with the same arguments."""

    def __init__(self) -> None:
        self.started: list[LocalProcess] = []

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> LocalProcess:
        assert command[1:3] == ["-m", "engine.vllm_plugin.api_server"]
        stand_in_command = [sys.executable, str(STAND_IN), *command[3:]]
        self.started.append(
            LocalLauncher().run(stand_in_command, env=os.environ, log_path=log_path)
        )
        return self.started[-1]

    def child_of(self, number: int) -> psutil.Process:
        """Return the stand-in's own process, the child of its process guard."""
        return psutil.Process(self.started[number].pid).children()[0]


@pytest.fixture
def launcher() -> StandInLauncher:
    return StandInLauncher()


@pytest.fixture
def agent(
    database: str, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agent]:
    monkeypatch.setattr(agents, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(agents, "DRAIN_SECONDS_MIN", 0.0)
    agent = Agent(launcher=launcher)
    yield agent
    agent.close()


def request(model: str, *, expert: int = 0) -> int:
    with db.transaction() as session:
        artifact = make_artifact(session, blob_stores.store(), expert=expert)
        return deployments.request(session, artifact, model=model).id


def stop(deployment_id: int) -> None:
    with db.transaction() as session:
        deployments.stop(session, deployments.get(session, deployment_id))


def read(deployment_id: int) -> Deployment:
    with db.transaction() as session:
        return deployments.get(session, deployment_id)


def rounds(agent: Agent, *, until: Callable[[], bool]) -> None:
    """Run rounds of the agent until a condition holds, for at most 30 seconds."""
    give_up_at = time.monotonic() + 30
    while not until():
        assert time.monotonic() < give_up_at
        agent.round()


def become_ready(agent: Agent, deployment_id: int) -> str:
    rounds(agent, until=lambda: read(deployment_id).state is State.READY)
    address = read(deployment_id).address
    assert address is not None
    return address


def test_a_requested_deployment_becomes_ready(agent: Agent) -> None:
    deployment_id = request("m")
    address = become_ready(agent, deployment_id)
    assert address.startswith("unix:")
    assert read(deployment_id).num_starts == 1


def test_a_dead_server_is_started_again(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    launcher.child_of(0).kill()
    rounds(agent, until=lambda: read(deployment_id).state is not State.READY)
    with db.transaction() as session, pytest.raises(Unavailable):
        deployments.resolve(session, "m")
    become_ready(agent, deployment_id)
    assert read(deployment_id).num_starts == 2


def test_a_hanging_server_is_started_again(
    agent: Agent, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_ENGINE_SILENCE_SECONDS", "1")
    settings.settings.cache_clear()
    monkeypatch.setattr(pulse, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(agents, "HUNG_STOP_SECONDS", 0.1)
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    # The kernel still accepts connections for a suspended server.
    launcher.child_of(0).suspend()
    rounds(agent, until=lambda: read(deployment_id).state is not State.READY)
    assert launcher.started[0].poll() is not None
    rounds(agent, until=lambda: read(deployment_id).state is State.STARTING)
    assert "has written no token for 1 seconds" in (read(deployment_id).error or "")
    become_ready(agent, deployment_id)
    assert (read(deployment_id).num_starts, read(deployment_id).error) == (2, None)


def test_a_server_that_never_starts_fails_with_its_log(
    agent: Agent, launcher: StandInLauncher
) -> None:
    deployment_id = request("broken")
    rounds(agent, until=lambda: read(deployment_id).state is State.FAILED)
    assert len(launcher.started) == agents.MAX_STARTS
    assert "this model cannot be served" in (read(deployment_id).error or "")


def test_a_stopped_deployment_drains_and_ends(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    stop(deployment_id)
    rounds(agent, until=lambda: read(deployment_id).state is State.STOPPED)
    assert launcher.started[0].poll() is not None


def test_a_server_with_requests_is_not_stopped(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("busy")
    become_ready(agent, deployment_id)
    stop(deployment_id)
    for _ in range(3):
        agent.round()
    assert read(deployment_id).state is State.DRAINING
    assert launcher.started[0].poll() is None


def test_a_server_whose_time_is_up_is_stopped(
    agent: Agent, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_DRAIN_SECONDS", "0")
    settings.settings.cache_clear()
    deployment_id = request("busy")
    become_ready(agent, deployment_id)
    stop(deployment_id)
    rounds(agent, until=lambda: read(deployment_id).state is State.STOPPED)
    assert launcher.started[0].poll() is not None


def test_a_new_version_replaces_the_old_one_once_ready(
    agent: Agent, launcher: StandInLauncher
) -> None:
    old = request("m")
    old_address = become_ready(agent, old)
    new = request("m", expert=1)
    with db.transaction() as session:
        assert deployments.resolve(session, "m") == old_address
    new_address = become_ready(agent, new)
    assert new_address != old_address
    rounds(agent, until=lambda: read(old).state is State.STOPPED)
    assert launcher.started[0].poll() is not None
    assert launcher.started[1].poll() is None


def test_deployments_of_a_previous_agent_are_started_again(agent: Agent) -> None:
    deployment_id = request("m")
    with db.transaction() as session:
        row = deployments.get(session, deployment_id)
        row.state, row.address = State.READY, "http://127.0.0.1:1"
    agent.reset()
    become_ready(agent, deployment_id)


def test_closing_stops_servers_and_keeps_their_requests(
    agent: Agent, launcher: StandInLauncher
) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    agent.close()
    assert launcher.started[0].poll() is not None
    assert read(deployment_id).state is State.REQUESTED


def test_lost_database_connections_are_restored(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    with db.transaction() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    agent.round()
    assert read(deployment_id).state is State.READY
    assert launcher.started[0].poll() is None


def test_a_lost_database_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_DATABASE_URL", "postgresql+psycopg://127.0.0.1:1/nothing")
    monkeypatch.setattr(agents, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(connections, "FINAL", ("",))  # no refusal is waited out
    stopping, num_tries = threading.Event(), []

    class Watched(Agent):
        def reset(self) -> None:
            num_tries.append(1)
            if len(num_tries) == 3:
                stopping.set()
            super().reset()

    Watched().run(stopping)
    assert len(num_tries) >= 3


@pytest.mark.slow  # starts vLLM itself
def test_sigterm_stops_the_agent_and_its_servers(database: str, tmp_path: Path) -> None:
    log_path = tmp_path / "agent.log"
    process = LocalLauncher().run(
        [sys.executable, "-m", "engine.serving.agent"], env=os.environ, log_path=log_path
    )
    deployment_id = request("m")
    give_up_at = time.monotonic() + 60
    while read(deployment_id).state is State.REQUESTED:
        assert time.monotonic() < give_up_at, log_path.read_text()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0, log_path.read_text()
    assert read(deployment_id).state is State.REQUESTED
