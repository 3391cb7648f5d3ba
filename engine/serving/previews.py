"""Previews: mixes that are served before their gate has judged them.

`deployments.request` makes a preview the release of its mix, or replaces it.
"""

from sqlalchemy.orm import Session

from engine.serving import deployments
from engine.serving.tables import Deployment


def request(session: Session, manifest_digest: str, *, model: str, ref: str) -> Deployment:
    """Request that a mix is served that its gate has not judged; return the deployment.

    It answers as `ref`, NAME@NUMBER, and as `model` while no release has that name. Requesting it
    again changes nothing.
    """
    known = deployments.find_preview(session, ref)
    if known is not None:
        return known
    deployment = Deployment(manifest_digest=manifest_digest, model=model, ref=ref)
    session.add(deployment)
    session.flush()
    return deployment


def end(session: Session, ref: str, *, reason: str) -> None:
    """Take the preview of a mix away, if there is one; its name then answers with the reason."""
    preview = deployments.find_preview(session, ref)
    if preview is not None:
        deployments.stop(session, preview)
        preview.error = reason
        session.flush()
