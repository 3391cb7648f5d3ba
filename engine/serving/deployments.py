"""Deployments as wishes and facts: ask for one, end one, find where a model name answers.

The web and the workflows write wishes here; `engine.serving.agent` makes them true and writes
facts.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from engine.serving.tables import LIVE_STATES, Deployment, DeploymentState
from registry.errors import NotFound, Unavailable
from registry.tables import Artifact

PENDING_STATES = (DeploymentState.REQUESTED, DeploymentState.STARTING)


def request(session: Session, artifact: Artifact, *, model: str) -> Deployment:
    """Have an artifact served as `model`. Asking for what is served, or under way, changes nothing.

    What serves the name now goes on until the new deployment is ready; an older wish that is still
    under way is dropped.
    """
    others = _find_live(session, model)
    if others and others[0].artifact_id == artifact.id:
        return others[0]
    for other in others:
        # One that was ready once and is being restarted is what serves the name now.
        if other.state in PENDING_STATES and other.ready_at is None:
            stop(session, other)
    deployment = Deployment(artifact_id=artifact.id, model=model)
    session.add(deployment)
    session.flush()
    return deployment


def stop(session: Session, deployment: Deployment) -> None:
    """End a deployment: its server answers what it has begun, then goes. Idempotent."""
    if deployment.state is DeploymentState.REQUESTED:
        deployment.state = DeploymentState.STOPPED
    elif deployment.state in (DeploymentState.STARTING, DeploymentState.READY):
        deployment.state = DeploymentState.DRAINING
    session.flush()


def get(session: Session, deployment_id: int) -> Deployment:
    """With its artifact. Raises NotFound."""
    query = select(Deployment).options(joinedload(Deployment.artifact)).filter_by(id=deployment_id)
    deployment = session.scalars(query).one_or_none()
    if deployment is None:
        raise NotFound(f"no deployment {deployment_id}")
    return deployment


def find_page(
    session: Session, *, before: int | None = None, limit: int = 50
) -> Sequence[Deployment]:
    """Newest first, with artifacts; those older than the deployment `before` only."""
    query = select(Deployment).options(joinedload(Deployment.artifact))
    if before is not None:
        query = query.where(Deployment.id < before)
    return session.scalars(query.order_by(Deployment.id.desc()).limit(limit)).all()


def find_by_model(session: Session, model: str) -> Deployment:
    """The latest deployment of a name that was not stopped, failed ones included. Raises NotFound.

    While a model is being replaced this is the new deployment; `resolve` still names the old one.
    """
    ended = (DeploymentState.DRAINING, DeploymentState.STOPPED)
    query = select(Deployment).where(Deployment.model == model, Deployment.state.not_in(ended))
    deployment = session.scalars(query.order_by(Deployment.id.desc()).limit(1)).one_or_none()
    if deployment is None:
        raise NotFound(f"no model {model!r} is deployed")
    return deployment


def ready(session: Session) -> Sequence[Deployment]:
    """What answers now, by model name."""
    query = select(Deployment).filter_by(state=DeploymentState.READY).order_by(Deployment.model)
    return session.scalars(query).all()


def live(session: Session) -> Sequence[Deployment]:
    """What the agent has to do with, oldest first, with artifacts."""
    query = select(Deployment).where(Deployment.state.in_(LIVE_STATES)).order_by(Deployment.id)
    return session.scalars(query.options(joinedload(Deployment.artifact))).all()


def resolve(session: Session, model: str) -> str:
    """The address, `http://host:port`, where a model name answers.

    Raises NotFound when nobody deployed it, Unavailable while it starts or when it has failed.
    """
    query = select(Deployment.address).filter_by(model=model, state=DeploymentState.READY)
    address = session.scalars(query).one_or_none()
    if address is not None:
        return address
    if find_by_model(session, model).state is DeploymentState.FAILED:
        raise Unavailable(f"the deployment of {model!r} failed; its page says why")
    raise Unavailable(f"{model!r} is starting; try again in a few seconds")


def advance(
    session: Session,
    deployment_id: int,
    seen: DeploymentState,
    state: DeploymentState,
    *,
    num_starts: int,
    error: str | None = None,
) -> bool:
    """Move a deployment on; False, and no change, when somebody else has moved it from `seen`.

    None of the states that this leads to answers requests, so the address is forgotten.
    """
    deployment = session.get(Deployment, deployment_id, with_for_update=True)
    if deployment is None or deployment.state is not seen:
        return False
    deployment.state = state
    deployment.num_starts = num_starts
    deployment.error = error
    deployment.address = None
    session.flush()
    return True


def mark_ready(session: Session, deployment_id: int, *, address: str) -> None:
    """A started server answers: route its name there, and let an older one of the name drain.

    When a newer one is ready already, or this one was stopped meanwhile, nothing is routed.
    """
    deployment = session.get_one(Deployment, deployment_id, with_for_update=True)
    if deployment.state is not DeploymentState.STARTING:
        return
    query = select(Deployment).filter_by(model=deployment.model, state=DeploymentState.READY)
    other = session.scalars(query.with_for_update()).one_or_none()
    if other is not None and other.id > deployment.id:
        stop(session, deployment)
        return
    if other is not None:
        stop(session, other)
    deployment.state = DeploymentState.READY
    deployment.address = address
    deployment.error = None
    deployment.ready_at = datetime.now(UTC)
    session.flush()


def reset(session: Session) -> None:
    """No server runs: what should run is to be started again, what should end has ended."""
    for deployment in live(session):
        deployment.address = None
        if deployment.state is DeploymentState.DRAINING:
            deployment.state = DeploymentState.STOPPED
        else:
            deployment.state = DeploymentState.REQUESTED
    session.flush()


def _find_live(session: Session, model: str) -> Sequence[Deployment]:
    """Newest first, locked, without those that are draining."""
    states = (*PENDING_STATES, DeploymentState.READY)
    query = select(Deployment).where(Deployment.model == model, Deployment.state.in_(states))
    return session.scalars(query.order_by(Deployment.id.desc()).with_for_update()).all()
