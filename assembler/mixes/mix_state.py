"""Move a mix version through its states; every change locks the row and records an event.

A final state (succeeded, failed, cancelled, parked) stays, unless the gate is overruled or the
version is retried. The result of a step that ends after its version was cancelled is refused.
"""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assembler.mixes import job_events, previews, retention
from assembler.tables import FINAL_STATES, RETRIED_STATES, MixState, MixVersion
from registry.errors import Conflict, NotFound

STATES = {
    "assemble": MixState.ASSEMBLING,
    "finetune": MixState.FINETUNING,
    "compress": MixState.COMPRESSING,
    "gate": MixState.GATING,
    "publish": MixState.PUBLISHING,
    "deploy": MixState.PUBLISHING,
}


def begin(session: Session, version_id: int, *, step: str) -> bool:
    """Enter a step. Return False if it has ended before, or the version is in a final state."""
    version = locked(session, version_id)
    if version.state in FINAL_STATES or not job_events.begin_step(
        session, version.job_id, step=step
    ):
        return False
    version.state = STATES[step]
    return True


def complete(session: Session, version_id: int, *, step: str, **values: Any) -> MixVersion:
    """Store the results of a step (columns of the row) and end it.

    Raises Conflict if the version is in a final state.
    """
    version = locked(session, version_id)
    if version.state in FINAL_STATES:
        raise Conflict(f"{version.job_id} is {version.state}; {step} came too late")
    for column, value in values.items():
        setattr(version, column, value)
    version.progress = None
    job_events.end_step(session, version.job_id, step=step)
    return version


def report(session: Session, version_id: int, *, progress: dict[str, Any]) -> None:
    """Store the progress of the running step."""
    version = locked(session, version_id)
    if version.state not in FINAL_STATES:
        version.progress = progress


def keep_report(session: Session, version_id: int, *, digest: str) -> None:
    """Keep the report of a failed gate, and for a while its candidate; the step does not end."""
    version = locked(session, version_id)
    version.gate_report_digest = digest
    version.kept_until = retention.until()


def finish(session: Session, version_id: int, *, state: MixState, error: str | None = None) -> None:
    """Enter a final state, once. A version that has not succeeded is previewed no more."""
    version = locked(session, version_id)
    if version.state in FINAL_STATES:
        return
    version.state, version.error, version.progress = state, error, None
    version.finished_at = func.now()
    if state in RETRIED_STATES:
        previews.end(session, version)
    data = {"state": state, "phase": "finished", **({"error": error} if error else {})}
    job_events.record(session, version.job_id, type="state", message=error or state, data=data)
    session.flush()


def overrule(
    session: Session, version_id: int, *, override_digest: str, message: str
) -> MixVersion:
    """Mark a version that its gate refused as succeeded. Raises Conflict if its time is over."""
    version = locked(session, version_id)
    if version.state is not MixState.FAILED:
        raise Conflict(f"{version.job_id} is {version.state} by now")
    retention.check_kept(version)
    version.state, version.error = MixState.SUCCEEDED, None
    version.override_digest, version.kept_until = override_digest, None
    data = {"state": version.state, "phase": "overridden"}
    job_events.record(session, version.job_id, type="state", message=message, data=data)
    return version


def retry(session: Session, version_id: int) -> None:
    """Queue an unfinished version again; steps that have ended are not repeated.

    A version that goes on already stays as it is. Raises Conflict for one that has succeeded, or
    that its gate refused.
    """
    version = locked(session, version_id)
    if version.state not in FINAL_STATES:
        return
    if version.state is MixState.SUCCEEDED:
        raise Conflict("it has succeeded; there is nothing to retry")
    if not can_retry(version):
        raise Conflict(
            "its gate refused it, and would refuse it again: override it, or request the mix with"
            " another policy, which does not repeat the finetune"
        )
    before, version.state, version.error = version.state, MixState.QUEUED, None
    version.finished_at = version.progress = None
    data = {"state": version.state, "phase": "retried", "before": before}
    job_events.record(session, version.job_id, type="state", message="retried", data=data)
    job_events.record_trace(session, version.job_id)
    session.flush()


def can_retry(version: MixVersion) -> bool:
    """Tell whether a retry goes on with a version: its gate would refuse it again."""
    return version.state in RETRIED_STATES and version.kept_until is None


def is_over(session: Session, version_id: int) -> bool:
    """Tell whether a version is in a final state."""
    query = select(MixVersion.state).where(MixVersion.id == version_id)
    return session.scalar(query) in FINAL_STATES


def locked(session: Session, version_id: int) -> MixVersion:
    """Return the row, locked until the transaction ends. Raises NotFound."""
    version = session.get(MixVersion, version_id, with_for_update=True, populate_existing=True)
    if version is None:
        raise NotFound(f"no mix version {version_id}")
    return version
