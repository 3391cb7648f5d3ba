"""Change the options of an engine that runs: a new engine with them takes the name over."""

from sqlalchemy.orm import Session

from engine.serving import deployments
from engine.serving.tables import Deployment
from engine.vllm_server.engine_options import EngineOptions
from registry.errors import Conflict


def change(session: Session, deployment: Deployment, options: EngineOptions) -> Deployment:
    """Request that a release is served with other options; return its successor.

    It serves on until its successor is ready. Nothing changes when the newest deployment of the
    name has these options. Raises Conflict for a preview, and for one that another version has
    replaced or that has ended.
    """
    if deployment.artifact is None:
        raise Conflict(
            f"deployment {deployment.id} is a preview, which runs as gates do: change its options"
            " when it is published"
        )
    newest = next(iter(deployments.find_live(session, deployment.model)), None)
    if newest is None or newest.artifact_id != deployment.artifact_id:
        raise Conflict(
            f"deployment {deployment.id} does not serve {deployment.model!r} any more: deploy it"
            " again, with options"
        )
    return deployments.request(
        session,
        deployment.artifact,
        model=deployment.model,
        ref=deployment.ref,
        pinned=newest.pinned,
        options=options,
    )
