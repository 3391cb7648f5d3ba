"""Deployments that are asleep: they have given their memory to others, and a request wakes them."""

from datetime import UTC, datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from engine.serving.tables import Deployment, DeploymentState
from registry.errors import Unavailable

WAKING_STATES = (DeploymentState.REQUESTED, DeploymentState.STARTING)


class Asleep(Unavailable):
    """The model is asleep, or is being woken: a request may wait for it."""


def put_to_sleep(session: Session, deployment_id: int) -> bool:
    """Route no more requests to a ready deployment; return False if it is not ready any more.

    Its engine ends when it has answered what it has begun.
    """
    deployment = session.get(Deployment, deployment_id, with_for_update=True)
    if deployment is None or deployment.state is not DeploymentState.READY:
        return False
    deployment.state = DeploymentState.ASLEEP
    deployment.address = deployment.pid = deployment.pid_started = None
    session.flush()
    return True


def wake(session: Session, model: str) -> None:
    """Request the engine of what is asleep under a model name, or NAME@NUMBER. Idempotent."""
    query = select(Deployment).where(
        or_(Deployment.model == model, Deployment.ref == model),
        Deployment.state == DeploymentState.ASLEEP,
    )
    newest = query.order_by(Deployment.artifact_id.is_(None), Deployment.id.desc()).limit(1)
    deployment = session.scalars(newest.with_for_update()).one_or_none()
    if deployment is not None:
        deployment.state = DeploymentState.REQUESTED
        deployment.woken_at = datetime.now(UTC)
        session.flush()


def is_asleep(deployment: Deployment) -> bool:
    """Tell whether a request for it may wait: it is asleep, or is being woken."""
    if deployment.state is DeploymentState.ASLEEP:
        return True
    return deployment.woken_at is not None and deployment.state in WAKING_STATES
