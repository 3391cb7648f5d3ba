"""The agent matches real processes to rows of a real database; a stand-in replaces vLLM.

Covers: engine.serving.running.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from engine.launch.launcher import LocalLauncher
from engine.serving import agent as agents
from engine.serving import deployments, engine_memory, model_routes, pulse, sleeping
from engine.serving.agent import Agent
from engine.serving.running import Running
from engine.vllm_server import vllm_process
from registry import settings
from registry.database import connections, db
from registry.errors import Unavailable
from tests.engine.stand_in_agents import (
    StandInLauncher,
    State,
    become_ready,
    read,
    request,
    rounds,
    stop,
)


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
        model_routes.resolve(session, "m")
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


def test_a_deployment_waits_for_a_full_disk(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is not at fault, so its starts are not used up."""
    monkeypatch.setattr(agents, "FULL_DISK_SECONDS", 0.1)
    deployment_id = request("m")
    monkeypatch.setenv("NEXUSMIX_DISK_RESERVE_BYTES", str(1 << 60))
    settings.settings.cache_clear()
    rounds(agent, until=lambda: read(deployment_id).error is not None)
    waiting = read(deployment_id)
    assert (waiting.state, waiting.num_starts) == (State.REQUESTED, 0)
    assert "kept for the database" in (waiting.error or "")
    monkeypatch.delenv("NEXUSMIX_DISK_RESERVE_BYTES")
    settings.settings.cache_clear()
    become_ready(agent, deployment_id)
    assert read(deployment_id).num_starts == 1


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


def test_a_model_sleeps_for_another_and_is_woken(
    agent: Agent, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models share the room of one: each answers when it is asked for."""
    monkeypatch.setattr(engine_memory, "MIN_AWAKE_SECONDS", 0.0)
    monkeypatch.setattr(engine_memory, "budget", lambda: 1)
    first, second = request("m"), request("n", expert=1)
    become_ready(agent, first)
    become_ready(agent, second)
    assert read(first).state is State.ASLEEP
    rounds(agent, until=lambda: launcher.started[0].poll() is not None)
    with db.transaction() as session:
        sleeping.wake(session, "m")
    become_ready(agent, first)
    assert read(second).state is State.ASLEEP
    assert len(launcher.started) == 3


def test_a_deployment_that_finds_no_memory_says_so(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_memory, "budget", lambda: 1)
    first, second = request("m"), request("n", expert=1)
    become_ready(agent, first)
    with db.transaction() as session:
        deployments.get(session, first).pinned = True
    rounds(agent, until=lambda: read(second).error is not None)
    assert (read(second).state, read(second).error) == (State.REQUESTED, engine_memory.WAITS)
    stop(first)
    become_ready(agent, second)
    assert read(second).error is None


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
        assert model_routes.resolve(session, "m").address == old_address
    new_address = become_ready(agent, new)
    assert new_address != old_address
    rounds(agent, until=lambda: read(old).state is State.STOPPED)
    assert launcher.started[0].poll() is not None
    assert launcher.started[1].poll() is None


def test_trouble_of_one_deployment_is_its_own(
    agent: Agent, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = request("m"), request("n")
    become_ready(agent, good)
    become_ready(agent, bad)

    def fail(running: Running) -> None:
        if running.server.model == "n":
            raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(Running, "check", fail)
    rounds(agent, until=lambda: read(bad).state is not State.READY)
    assert "nobody foresaw this" in (read(bad).error or "")
    assert read(good).state is State.READY


def test_a_server_whose_log_was_deleted_is_started_again(
    agent: Agent, launcher: StandInLauncher
) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    vllm_process.log_path(deployment_id).unlink()
    launcher.child_of(0).kill()
    rounds(agent, until=lambda: read(deployment_id).num_starts == 2)
    become_ready(agent, deployment_id)


def test_a_slow_deployment_holds_no_other_one_up(
    agent: Agent, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "STEPS_SECONDS", 0.05)
    released, start = threading.Event(), vllm_process.start

    def start_slowly(*arguments: Any, names: Sequence[str], **options: Any) -> vllm_process.Server:
        if names == ("slow",):
            released.wait()
        return start(*arguments, names=names, **options)

    monkeypatch.setattr(vllm_process, "start", start_slowly)
    slow, fast = request("slow"), request("m")
    become_ready(agent, fast)
    assert read(slow).state is State.STARTING
    released.set()
    become_ready(agent, slow)


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
        def round(self) -> None:
            num_tries.append(1)
            if len(num_tries) == 3:
                stopping.set()
            super().round()

    Watched().run(stopping)
    assert len(num_tries) >= 3


@pytest.mark.long  # starts vLLM itself
def test_a_wedged_vllm_is_replaced(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that computes is suspended; the one that answers `/health` goes on."""
    monkeypatch.setenv("NEXUSMIX_ENGINE_SILENCE_SECONDS", "3")
    settings.settings.cache_clear()
    monkeypatch.setattr(pulse, "PROBE_SECONDS", 1.0)
    agent = Agent()
    try:
        deployment_id = request("m")
        rounds(agent, until=lambda: read(deployment_id).state is State.READY, seconds=300)
        pid, num_starts = read(deployment_id).pid, read(deployment_id).num_starts
        assert pid is not None
        [api_server] = psutil.Process(pid).children()
        engine_core = max(api_server.children(), key=lambda p: p.memory_info().rss)
        engine_core.suspend()
        rounds(agent, until=lambda: read(deployment_id).state is not State.READY, seconds=60)
        rounds(agent, until=lambda: read(deployment_id).state is State.READY, seconds=300)
        assert read(deployment_id).num_starts > num_starts
        assert not engine_core.is_running()
    finally:
        agent.close()


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
