"""Request deployments, end them, and record what their agents do.

The web process and the workflows write requests; `engine.serving.agent` carries them out and
records the result.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, func, or_, select, text
from sqlalchemy.orm import Session, joinedload

from engine.launch.adopted_process import Identity
from engine.serving import sleeping
from engine.serving.tables import LIVE_STATES, AgentLease, Deployment, DeploymentState
from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry.database.tables import Artifact
from registry.errors import NotFound

# A host that is restarted is back by then.
GONE_SECONDS = 120
PENDING_STATES = (DeploymentState.REQUESTED, DeploymentState.STARTING)
GOING_ON_STATES = (*PENDING_STATES, DeploymentState.READY, DeploymentState.ASLEEP)


def request(
    session: Session,
    artifact: Artifact,
    *,
    model: str,
    ref: str | None = None,
    pinned: bool = False,
    options: EngineOptions | None = None,
) -> Deployment:
    """Request that an artifact is served as `model`; return the deployment.

    `options` of its engine are those of the name's present deployment if they are None.

    `ref` is the mix as NAME@NUMBER. If its preview runs the same bytes, that preview becomes the
    release: its engine goes on. When the artifact is already served or starting with these options,
    only `pinned` changes. One that is asleep is woken.
    The deployment that serves the name now continues until the new one is ready. An older request
    that is still starting is dropped.
    """
    live_deployments = find_live(session, model)
    preview = None if ref is None else find_preview(session, ref)
    if options is None:
        options = live_deployments[0].engine_options if live_deployments else DEFAULT
    wanted = (artifact.id, options)
    if live_deployments and _served(live_deployments[0]) == wanted:
        if preview is not None:
            stop(session, preview)
        sleeping.wake(session, model)
        live_deployments[0].pinned = pinned
        session.flush()
        return live_deployments[0]
    # A deployment that was ready before and is being restarted still serves the name.
    serving = [other for other in live_deployments if has_served(other)]
    for other in live_deployments:
        if other not in serving:
            stop(session, other)
    can_become = preview is not None and preview.engine_options == options
    if preview is not None and can_become and _can_become(preview, artifact, serving):
        if preview.state is DeploymentState.READY:
            for other in serving:
                stop(session, other)
        preview.artifact_id = artifact.id
        preview.pinned = pinned
        session.flush()
        return preview
    deployment = Deployment(
        artifact_id=artifact.id,
        manifest_digest=artifact.manifest_digest,
        model=model,
        ref=ref,
        pinned=pinned,
        options=options.stored(),
    )
    session.add(deployment)
    session.flush()
    return deployment


def _served(deployment: Deployment) -> tuple[int | None, EngineOptions]:
    """Return what a deployment serves, and how."""
    return deployment.artifact_id, deployment.engine_options


def find_preview(session: Session, ref: str) -> Deployment | None:
    """Return the preview of a mix that answers or is about to, and lock its row."""
    query = select(Deployment).where(
        Deployment.ref == ref,
        Deployment.artifact_id.is_(None),
        Deployment.state.in_(GOING_ON_STATES),
    )
    newest = query.order_by(Deployment.id.desc()).limit(1)
    return session.scalars(newest.with_for_update()).one_or_none()


def stop(session: Session, deployment: Deployment) -> None:
    """End a deployment: its server finishes the requests it has begun, then stops. Idempotent."""
    if deployment.state is DeploymentState.REQUESTED:
        deployment.state = DeploymentState.STOPPED
    elif deployment.state in (
        DeploymentState.STARTING,
        DeploymentState.READY,
        # Its engine may still answer what it has begun.
        DeploymentState.ASLEEP,
    ):
        deployment.state = DeploymentState.DRAINING
    session.flush()


def get(session: Session, deployment_id: int) -> Deployment:
    """Return a deployment with its artifact. Raises NotFound."""
    query = select(Deployment).options(joinedload(Deployment.artifact)).filter_by(id=deployment_id)
    deployment = session.scalars(query).one_or_none()
    if deployment is None:
        raise NotFound(f"no deployment {deployment_id}")
    return deployment


def find_page(
    session: Session, *, model: str | None = None, before: int | None = None, limit: int = 50
) -> Sequence[Deployment]:
    """Return deployments with artifacts, newest first, older than the id `before`.

    With `model`, only those of that model name.
    """
    query = select(Deployment).options(joinedload(Deployment.artifact))
    if model is not None:
        query = query.where(Deployment.model == model)
    if before is not None:
        query = query.where(Deployment.id < before)
    return session.scalars(query.order_by(Deployment.id.desc()).limit(limit)).all()


def find_by_model(session: Session, model: str) -> Deployment:
    """Return the latest deployment of a model name that was not stopped, failed ones included.

    `model` may be NAME@NUMBER. While a model is being replaced this is the new deployment, whereas
    `resolve` still returns the old one's address. Raises NotFound, for a preview that was taken
    away with the reason.
    """
    of_name = select(Deployment).where(has_name(model)).order_by(Deployment.id.desc()).limit(1)
    stopped_states = (DeploymentState.DRAINING, DeploymentState.STOPPED)
    going_on = of_name.where(Deployment.state.not_in(stopped_states))
    deployment = session.scalars(going_on).one_or_none()
    if deployment is not None:
        return deployment
    last = session.scalars(of_name).one_or_none()
    if last is not None and last.is_preview and last.error is not None:
        raise NotFound(f"the preview of {last.ref} was taken away: {last.error}")
    raise NotFound(f"no model {model!r} is deployed")


def live(session: Session, *, host: str | None = None) -> Sequence[Deployment]:
    """Return live deployments, of one host or of all, oldest first, with their artifacts."""
    query = select(Deployment).where(Deployment.state.in_(LIVE_STATES)).order_by(Deployment.id)
    if host is not None:
        query = query.where(Deployment.host == host)
    return session.scalars(query.options(joinedload(Deployment.artifact))).all()


def find_live(session: Session, model: str) -> Sequence[Deployment]:
    """Return the releases of a name that are not draining, newest first, and lock their rows."""
    query = select(Deployment).where(
        Deployment.model == model,
        Deployment.artifact_id.is_not(None),
        Deployment.state.in_(GOING_ON_STATES),
    )
    return session.scalars(query.order_by(Deployment.id.desc()).with_for_update()).all()


def claim(session: Session, *, host: str) -> None:
    """Give `host` the live deployments of nobody, and those of hosts that are gone.

    A host is gone when its agent has not renewed its lease for GONE_SECONDS. Its engines are
    started anew here.
    """
    is_live = Deployment.state.in_(LIVE_STATES)
    gone = select(AgentLease.host).where(
        AgentLease.expires_at < func.now() - text(f"interval '{GONE_SECONDS} seconds'"),
        AgentLease.host != host,
    )
    for deployment in session.scalars(
        select(Deployment)
        .where(is_live, or_(Deployment.host.is_(None), Deployment.host.in_(gone)))
        .with_for_update(skip_locked=True)
    ):
        deployment.host = host
        if deployment.state is not DeploymentState.REQUESTED:
            forget_engine(deployment)
    session.flush()


def forget_engine(deployment: Deployment) -> None:
    """Record that no engine runs: request it again, or end it if it was draining."""
    deployment.address = deployment.pid = deployment.pid_started = None
    if deployment.state is DeploymentState.DRAINING:
        deployment.state = DeploymentState.STOPPED
    elif deployment.state is not DeploymentState.ASLEEP:
        deployment.state = DeploymentState.REQUESTED


def record_engine(
    session: Session, deployment_id: int, *, identity: Identity | None, address: str | None
) -> None:
    """Record the engine of a deployment, so that another agent of the host can adopt it."""
    deployment = session.get_one(Deployment, deployment_id, with_for_update=True)
    if deployment.state is DeploymentState.STARTING:
        deployment.address = address
    if identity is not None:
        deployment.pid, deployment.pid_started = identity.pid, identity.started
    session.flush()


def advance(
    session: Session,
    deployment_id: int,
    seen: DeploymentState,
    state: DeploymentState,
    *,
    num_starts: int,
    error: str | None = None,
) -> bool:
    """Move a deployment from state `seen` to `state`; return False, without a change, when it has
    left `seen` meanwhile.

    What is known of its engine is deleted, because none of the states that this is called with
    answers requests.
    """
    deployment = session.get(Deployment, deployment_id, with_for_update=True)
    if deployment is None or deployment.state is not seen:
        return False
    deployment.state = state
    deployment.num_starts = num_starts
    deployment.error = error
    deployment.address = deployment.pid = deployment.pid_started = None
    session.flush()
    return True


def mark_ready(
    session: Session, deployment_id: int, *, address: str, context: int | None = None
) -> None:
    """Route the model name to a started server, whose context has this many tokens.

    A release drains an older one of the name, and the preview of its mix. Nothing is routed when a
    newer release is ready already, or when this deployment was stopped meanwhile.
    """
    deployment = session.get_one(Deployment, deployment_id, with_for_update=True)
    if deployment.state is not DeploymentState.STARTING:
        return
    if not deployment.is_preview:
        other = _find_ready_release(session, deployment.model)
        if other is not None and other.id > deployment.id:
            stop(session, deployment)
            return
        for asleep in _find_asleep(session, deployment.model):
            stop(session, asleep)
        preview = None if deployment.ref is None else find_preview(session, deployment.ref)
        for replaced in (other, preview):
            if replaced is not None:
                stop(session, replaced)
    deployment.state = DeploymentState.READY
    deployment.address = address
    deployment.context = context
    deployment.error = None
    deployment.ready_at = datetime.now(UTC)
    deployment.woken_at = None
    session.flush()


def reset(session: Session, *, host: str) -> None:
    """Record that no server runs on a host: request live deployments again, end draining ones."""
    for deployment in live(session, host=host):
        forget_engine(deployment)
    session.flush()


def has_agent(session: Session) -> bool:
    """Tell whether any agent carries out requests."""
    lease = select(AgentLease.host).where(AgentLease.expires_at > func.now())
    return session.scalar(lease.limit(1)) is not None


def _find_ready_release(session: Session, model: str) -> Deployment | None:
    query = select(Deployment).where(
        Deployment.model == model,
        Deployment.artifact_id.is_not(None),
        Deployment.state == DeploymentState.READY,
    )
    return session.scalars(query.with_for_update()).one_or_none()


def _find_asleep(session: Session, model: str) -> Sequence[Deployment]:
    query = select(Deployment).where(
        Deployment.model == model,
        Deployment.artifact_id.is_not(None),
        Deployment.state == DeploymentState.ASLEEP,
    )
    return session.scalars(query.with_for_update()).all()


def _can_become(preview: Deployment, artifact: Artifact, releases: Sequence[Deployment]) -> bool:
    """Tell whether a preview can become the release that follows others of its name.

    While it starts, it does not follow one that was requested after it: `mark_ready` would take it
    for the older one.
    """
    if preview.manifest_digest != artifact.manifest_digest:
        return False
    is_ready = preview.state is DeploymentState.READY
    return is_ready or all(release.id < preview.id for release in releases)


def has_name(model: str) -> ColumnElement[bool]:
    """Return the condition that a deployment has a model name, or is NAME@NUMBER."""
    # No name has an @, so that a model name is never taken for a ref.
    return or_(Deployment.model == model, Deployment.ref == model)


def has_served(deployment: Deployment) -> bool:
    """Tell whether its engine has answered; it may be restarted, or asleep."""
    return deployment.state is DeploymentState.READY or deployment.ready_at is not None
