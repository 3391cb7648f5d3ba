"""Deployments without an agent: requests, routes and replacement."""

import pytest
from sqlalchemy.orm import Session

from engine.serving import deployments, model_routes
from engine.serving.tables import Deployment, DeploymentState
from registry.database.tables import Artifact
from registry.errors import NotFound, Unavailable

ADDRESS = "http://127.0.0.1:1"


def make_ready(session: Session, deployment: Deployment, *, address: str = ADDRESS) -> None:
    deployment.state = DeploymentState.STARTING
    session.flush()
    deployments.mark_ready(session, deployment.id, address=address)


def test_requesting_twice_gives_one_deployment(session: Session, artifact: Artifact) -> None:
    first = deployments.request(session, artifact, model="m")
    assert deployments.request(session, artifact, model="m") is first
    assert list(deployments.live(session)) == [first]


def test_a_name_is_resolved_when_its_server_is_ready(session: Session, artifact: Artifact) -> None:
    with pytest.raises(NotFound, match="'m'"):
        model_routes.resolve(session, "m")
    deployment = deployments.request(session, artifact, model="m")
    with pytest.raises(Unavailable, match="starting"):
        model_routes.resolve(session, "m")
    make_ready(session, deployment)
    assert model_routes.resolve(session, "m").address == ADDRESS
    assert model_routes.available(session) == {"m": deployment}


def test_resolve_reports_a_failed_deployment(session: Session, artifact: Artifact) -> None:
    deployments.request(session, artifact, model="m").state = DeploymentState.FAILED
    with pytest.raises(Unavailable, match="failed"):
        model_routes.resolve(session, "m")


def test_the_old_deployment_serves_until_the_new_one_is_ready(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    old = deployments.request(session, artifact, model="m")
    make_ready(session, old)
    new = deployments.request(session, other, model="m")
    assert model_routes.resolve(session, "m").address == ADDRESS
    assert deployments.find_by_model(session, "m") is new
    make_ready(session, new, address="http://127.0.0.1:2")
    assert model_routes.resolve(session, "m").address == "http://127.0.0.1:2"
    assert old.state is DeploymentState.DRAINING


def test_a_pending_request_is_dropped_for_a_newer_one(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    first = deployments.request(session, artifact, model="m")
    deployments.request(session, other, model="m")
    assert first.state is DeploymentState.STOPPED


def test_a_restarted_older_deployment_does_not_replace_a_newer_one(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    old = deployments.request(session, artifact, model="m")
    make_ready(session, old)
    deployments.advance(session, old.id, old.state, DeploymentState.REQUESTED, num_starts=1)
    new = deployments.request(session, other, model="m")
    make_ready(session, new)
    make_ready(session, old)
    assert (new.state, old.state) == (DeploymentState.READY, DeploymentState.DRAINING)


def test_stopping_is_idempotent(session: Session, artifact: Artifact) -> None:
    deployment = deployments.request(session, artifact, model="m")
    make_ready(session, deployment)
    deployments.stop(session, deployment)
    deployments.stop(session, deployment)
    assert deployment.state is DeploymentState.DRAINING
    with pytest.raises(NotFound):
        model_routes.resolve(session, "m")


def test_advance_fails_when_the_state_has_changed_meanwhile(
    session: Session, artifact: Artifact
) -> None:
    deployment = deployments.request(session, artifact, model="m")
    deployments.stop(session, deployment)
    assert not deployments.advance(
        session,
        deployment.id,
        DeploymentState.REQUESTED,
        DeploymentState.STARTING,
        num_starts=1,
    )
    assert deployment.state is DeploymentState.STOPPED


def test_reset_requests_running_deployments_and_stops_draining_ones(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    running = deployments.request(session, artifact, model="m")
    make_ready(session, running)
    draining = deployments.request(session, other, model="n")
    draining.state = DeploymentState.DRAINING
    deployments.claim(session, host="here")
    deployments.reset(session, host="here")
    assert (running.state, running.address) == (DeploymentState.REQUESTED, None)
    assert draining.state is DeploymentState.STOPPED


def test_pages_list_the_newest_first(session: Session, artifact: Artifact) -> None:
    made = [deployments.request(session, artifact, model=name) for name in "abc"]
    assert list(deployments.find_page(session, limit=2)) == [made[2], made[1]]
    assert list(deployments.find_page(session, before=made[1].id)) == [made[0]]
    assert deployments.get(session, made[0].id).artifact is artifact
    with pytest.raises(NotFound):
        deployments.get(session, 10_000)
