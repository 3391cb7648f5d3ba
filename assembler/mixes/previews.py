"""The preview of a mix: it is served from its assembly on, until its gate has judged it."""

from sqlalchemy.orm import Session

from assembler.mixes import job_events
from assembler.tables import FINAL_STATES, Mix, MixState, MixVersion
from engine.serving import deployments, model_routes, previews
from engine.serving.tables import Deployment, DeploymentState


def request(session: Session, version: MixVersion) -> Deployment | None:
    """Serve the assembled mix, if its request asks for that; return the deployment.

    None before the assembly, and once the version is published or has ended.
    """
    is_judged = version.artifact_id is not None or version.state in FINAL_STATES
    if not version.preview or version.assembled_digest is None or is_judged:
        return None
    name, ref = _names(session, version)
    return previews.request(session, version.assembled_digest, model=name, ref=ref)


def is_starting(session: Session, version: MixVersion) -> bool:
    """Tell whether an agent starts the preview of a version, for the first time."""
    _, ref = _names(session, version)
    found = deployments.find_preview(session, ref)
    if found is None or found.state is DeploymentState.READY or found.num_starts > 1:
        return False
    return deployments.has_agent(session)


def tell(session: Session, version: MixVersion) -> None:
    """Record under which name the preview of a version answers, or that it does not yet."""
    name, ref = _names(session, version)
    names = [key for key, row in model_routes.available(session).items() if row.ref == ref]
    if names:
        text = f"preview answers as model {names[0]!r}; its gate has not judged it yet"
    else:
        text = f"the preview of {name!r} does not answer yet; the job goes on"
    version.progress = None
    data = {"preview": names[0] if names else None}
    job_events.record(session, version.job_id, type="message", message=text, data=data)


def end(session: Session, version: MixVersion) -> None:
    """Take the preview of a version away that has ended without a release."""
    reasons = {
        MixState.CANCELLED: "it was cancelled",
        MixState.PARKED: "its job is parked",
        MixState.FAILED: "its job failed" if version.kept_until is None else "its gate refused it",
    }
    _, ref = _names(session, version)
    previews.end(session, ref, reason=f"{reasons[version.state]}; its page says more")


def _names(session: Session, version: MixVersion) -> tuple[str, str]:
    """Return the name of the mix, and NAME@NUMBER."""
    name = session.get_one(Mix, version.mix_id).name
    return name, f"{name}@{version.number}"
