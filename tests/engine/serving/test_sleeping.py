"""Deployments fall asleep and are woken, in the database."""

import pytest
from sqlalchemy.orm import Session

from engine.serving import deployments, model_routes, sleeping
from engine.serving.sleeping import Asleep
from engine.serving.tables import Deployment, DeploymentState
from registry.database.tables import Artifact
from registry.errors import NotFound
from tests.engine.serving.test_deployments import make_ready

ADDRESS = "http://127.0.0.1:1"


@pytest.fixture
def asleep(session: Session, artifact: Artifact) -> Deployment:
    deployment = deployments.request(session, artifact, model="m")
    make_ready(session, deployment)
    assert sleeping.put_to_sleep(session, deployment.id)
    return deployment


def test_a_request_wakes_it(session: Session, asleep: Deployment) -> None:
    with pytest.raises(Asleep, match="is being woken"):
        model_routes.resolve(session, "m")
    sleeping.wake(session, "m")
    assert asleep.state is DeploymentState.REQUESTED
    with pytest.raises(Asleep):
        model_routes.resolve(session, "m")
    make_ready(session, asleep)
    assert model_routes.resolve(session, "m").address == ADDRESS
    assert asleep.woken_at is None


def test_it_is_still_listed(session: Session, asleep: Deployment) -> None:
    assert model_routes.available(session) == {"m": asleep}
    assert model_routes.find_answering(session, "m") is None


def test_only_what_is_ready_falls_asleep(session: Session, asleep: Deployment) -> None:
    assert not sleeping.put_to_sleep(session, asleep.id)
    assert not sleeping.put_to_sleep(session, 10**6)


def test_stopping_ends_it(session: Session, asleep: Deployment) -> None:
    deployments.stop(session, asleep)
    assert asleep.state is DeploymentState.DRAINING
    sleeping.wake(session, "m")
    assert asleep.state is DeploymentState.DRAINING
    with pytest.raises(NotFound):
        model_routes.resolve(session, "m")


def test_deploying_it_again_wakes_and_pins_it(
    session: Session, artifact: Artifact, asleep: Deployment
) -> None:
    assert deployments.request(session, artifact, model="m", pinned=True) is asleep
    assert (asleep.state, asleep.pinned) == (DeploymentState.REQUESTED, True)


def test_a_new_version_ends_the_one_that_is_asleep(
    session: Session, other: Artifact, asleep: Deployment
) -> None:
    new = deployments.request(session, other, model="m")
    # Until the new one is ready, the old one answers.
    with pytest.raises(Asleep):
        model_routes.resolve(session, "m")
    make_ready(session, new)
    assert asleep.state is DeploymentState.DRAINING
    assert model_routes.available(session) == {"m": new}


def test_an_agent_that_takes_over_wakes_nobody(session: Session, asleep: Deployment) -> None:
    deployments.reset(session, host=str(asleep.host))
    assert asleep.state is DeploymentState.ASLEEP
