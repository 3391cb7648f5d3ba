"""Who acts for a host, what the next agent adopts, and what a late one may not write.

Covers: engine.launch.adopted_process.
"""

import pytest

from engine.serving import agent as agents
from engine.serving import agent_lease, deployments
from engine.serving.agent import Agent
from engine.serving.tables import AgentLease
from registry import settings
from registry.blobs import blob_stores
from registry.database import db
from tests.engine.factories import make_artifact
from tests.engine.stand_in_agents import (
    StandInLauncher,
    State,
    become_ready,
    read,
    request,
    rounds,
    stop,
)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another agent take over at once."""
    monkeypatch.setattr(agent_lease, "LEASE_SECONDS", 0)


@pytest.mark.usefixtures("short_lease")
def test_the_next_agent_adopts_the_servers(agent: Agent, launcher: StandInLauncher) -> None:
    ready, draining = request("m"), request("busy")
    address = become_ready(agent, ready)
    become_ready(agent, draining)
    stop(draining)
    agent.round()
    agent.abandon()
    successor = Agent(launcher=launcher)
    for _ in range(3):
        successor.round()
    row = read(ready)
    assert (row.state, row.address, row.num_starts) == (State.READY, address, 1)
    assert read(draining).state is State.DRAINING
    assert [process.poll() for process in launcher.started] == [None, None]
    successor.close()
    assert None not in [process.poll() for process in launcher.started]


@pytest.mark.usefixtures("short_lease")
def test_a_server_that_died_with_its_agent_is_started_again(
    agent: Agent, launcher: StandInLauncher
) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    agent.abandon()
    launcher.child_of(0).kill()
    launcher.started[0].wait(10)
    successor = Agent(launcher=launcher)
    rounds(successor, until=lambda: len(launcher.started) == 2)
    become_ready(successor, deployment_id)
    assert read(deployment_id).num_starts == 1  # nobody failed
    successor.close()


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize("change", ["pid_started", "manifest_digest"])
def test_another_process_is_not_adopted(
    agent: Agent, launcher: StandInLauncher, change: str
) -> None:
    """It has the same process id, or serves other weights."""
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    agent.abandon()
    with db.transaction() as session:
        row = deployments.get(session, deployment_id)
        if change == "pid_started":
            row.pid_started = 1
        else:
            other = make_artifact(session, blob_stores.store(), expert=1)
            row.manifest_digest = other.manifest_digest
    successor = Agent(launcher=launcher)
    rounds(successor, until=lambda: len(launcher.started) == 2)
    become_ready(successor, deployment_id)
    successor.close()


def test_one_agent_acts_for_a_host(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    other = Agent(launcher=launcher)
    other.round()
    other.close()
    agent.round()
    assert read(deployment_id).state is State.READY
    assert len(launcher.started) == 1


def test_agents_of_two_hosts_share_the_deployments(agent: Agent, launcher: StandInLauncher) -> None:
    here = request("m")
    become_ready(agent, here)
    elsewhere = Agent(launcher=launcher, host="elsewhere")
    there = request("n")
    become_ready(elsewhere, there)
    for _ in range(2):
        agent.round()
        elsewhere.round()
    assert (read(here).host, read(there).host) == (settings.settings().host_name, "elsewhere")
    assert len(launcher.started) == 2
    elsewhere.close()
    assert (read(here).state, read(there).state) == (State.READY, State.REQUESTED)


def test_deployments_of_a_host_that_is_gone_are_taken_over(
    agent: Agent, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_lease, "LEASE_SECONDS", -2 * deployments.GONE_SECONDS)
    gone = Agent(launcher=launcher, host="gone")
    deployment_id = request("m")
    become_ready(gone, deployment_id)
    gone.abandon()
    rounds(agent, until=lambda: len(launcher.started) == 2)
    become_ready(agent, deployment_id)
    row = read(deployment_id)
    assert (row.host, row.pid) == (settings.settings().host_name, launcher.started[1].pid)


@pytest.mark.usefixtures("short_lease")
def test_late_writes_of_an_agent_that_was_replaced_are_refused(
    agent: Agent, launcher: StandInLauncher
) -> None:
    deployment_id = request("m")
    become_ready(agent, deployment_id)
    late = read(deployment_id)
    successor = Agent(launcher=launcher)
    successor.round()
    agent._step(late)
    with pytest.raises(agents._Fenced):
        agent._advance(late, State.FAILED)
    assert read(deployment_id).state is State.READY
    agent.close()
    assert launcher.started[0].poll() is None
    successor.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("localhost", None),
        ("0.0.0.0", "http://here:8421"),
        ("10.0.0.7", "http://10.0.0.7:8421"),
        ("fd00::7", "http://[fd00::7]:8421"),
        ("mixes.example", "http://mixes.example:8421"),
    ],
)
def test_a_host_says_where_others_reach_it(
    database: str, host: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_HOST", host)
    monkeypatch.setenv("NEXUSMIX_HOST_NAME", "here")
    settings.settings.cache_clear()
    with db.transaction() as session:
        assert agent_lease.Lease("here").hold(session)
        assert session.get_one(AgentLease, "here").web_address == address
