"""Other options start another engine. The present one serves on until the new one is ready.

Covers: engine.serving.starting.
"""

import pytest
from sqlalchemy.orm import Session

from engine.serving import agent as agents
from engine.serving import deployments, option_changes, previews
from engine.serving.agent import Agent
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry.database import db
from registry.database.tables import Artifact
from registry.errors import Conflict
from tests.engine.stand_in_agents import (
    StandInLauncher,
    become_ready,
    read,
    request,
    rounds,
)

State = DeploymentState
SHORT = EngineOptions(context=128)


def change(deployment_id: int, options: EngineOptions) -> Deployment:
    with db.transaction() as session:
        deployment = deployments.get(session, deployment_id)
        return option_changes.change(session, deployment, options)


def test_a_change_replaces_the_engine_when_the_new_one_is_ready(
    agent: Agent, launcher: StandInLauncher
) -> None:
    first = request("m")
    become_ready(agent, first)
    second = change(first, SHORT)
    assert second.id != first
    assert (read(first).state, second.state) == (State.READY, State.REQUESTED)
    become_ready(agent, second.id)
    assert read(second.id).context == 128
    rounds(agent, until=lambda: read(first).state is State.STOPPED)
    assert len(launcher.started) == 2
    # The same options again change nothing, whichever of the two is asked.
    assert change(second.id, SHORT).id == second.id
    assert change(first, SHORT).id == second.id


def test_a_new_version_keeps_the_options_of_its_name(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    first = deployments.request(session, artifact, model="m", options=SHORT)
    assert deployments.request(session, artifact, model="m") is first
    second = deployments.request(session, other, model="m")
    assert second.engine_options == SHORT
    assert deployments.request(session, other, model="m", options=DEFAULT) is not second
    assert deployments.request(session, other, model="n").engine_options == DEFAULT


def test_a_preview_runs_as_gates_do(session: Session, artifact: Artifact) -> None:
    preview = previews.request(session, artifact.manifest_digest, model="m", ref="m@1")
    with pytest.raises(Conflict, match="is a preview"):
        option_changes.change(session, deployments.get(session, preview.id), SHORT)
    release = deployments.request(session, artifact, model="m", ref="m@1", options=SHORT)
    assert release is not preview
    assert deployments.request(session, artifact, model="m", ref="m@1") is release


def test_one_that_is_replaced_is_not_changed(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    first = deployments.request(session, artifact, model="m")
    deployments.request(session, other, model="m")
    with pytest.raises(Conflict, match="does not serve 'm' any more"):
        option_changes.change(session, deployments.get(session, first.id), SHORT)


def test_options_that_do_not_fit_the_host_fail_before_anything_starts(
    agent: Agent, launcher: StandInLauncher
) -> None:
    """They were the version's before, or were requested at a host with other devices."""
    deployment_id = request("m", options=EngineOptions(context=512))
    rounds(agent, until=lambda: read(deployment_id).state is State.FAILED)
    assert "context is 512, the model has a context of 256" in (read(deployment_id).error or "")
    assert read(deployment_id).num_starts == agents.MAX_STARTS
    assert launcher.started == []


def test_a_change_that_fails_leaves_the_old_engine(agent: Agent) -> None:
    first = request("m")
    become_ready(agent, first)
    second = change(first, EngineOptions(context=512))
    rounds(agent, until=lambda: read(second.id).state is State.FAILED)
    assert read(first).state is State.READY
