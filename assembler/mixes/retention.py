"""Keep the candidates that a gate refused for a while, to inspect, compare, export or overrule.

What a version made that failed otherwise, was cancelled or is parked, is kept as long: a retry goes
on with it. After that the version drops the digests of its checkpoints, a retry begins anew, and
house-keeping removes the tensors that nothing else needs.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from assembler.mixes import job_events
from assembler.tables import RETRIED_STATES, UNFINISHED_STATES, JobEvent, MixState, MixVersion
from registry.errors import Conflict
from registry.settings import settings


def until() -> datetime:
    """Return the time until which a candidate is kept that is refused now."""
    return datetime.now(UTC) + _days()


def is_kept(version: MixVersion) -> bool:
    """Tell whether the candidate of a refused version is still kept."""
    if version.state is not MixState.FAILED or version.gate_report_digest is None:
        return False
    # Versions that were refused before there was a limit have none.
    return version.kept_until is None or version.kept_until > datetime.now(UTC)


def check_kept(version: MixVersion) -> None:
    """Raise Conflict for a refused version whose candidate is gone."""
    if not is_kept(version):
        assert version.kept_until is not None
        raise Conflict(
            f"its candidate was kept until {version.kept_until:%Y-%m-%d %H:%M} UTC; request the mix"
            " again, with a policy that it satisfies"
        )


def may_go_on() -> ColumnElement[bool]:
    """Return the SQL condition that a version is unfinished, or ended so lately that it may go on.

    A published one does not go on.
    """
    ended_lately = MixVersion.finished_at >= datetime.now(UTC) - _days()
    return or_(MixVersion.state.in_(UNFINISHED_STATES), and_(_failed(), ended_lately))


def num_expired(session: Session) -> int:
    """Return the number of versions whose candidates `remove_expired` would drop."""
    return session.scalar(select(func.count()).select_from(MixVersion).where(_has_expired())) or 0


def remove_expired(session: Session) -> int:
    """Drop the candidates whose time is over, and return their number. Their reports stay."""
    expired = session.scalars(
        select(MixVersion).where(_has_expired()).with_for_update(skip_locked=True)
    ).all()
    for version in expired:
        version.assembled_digest = version.finetuned_digest = version.compressed_digest = None
        _repeat_steps(session, version)
        kept_until = version.kept_until or (version.finished_at or datetime.now(UTC)) + _days()
        what = "the refused candidate" if version.kept_until else "what it had made"
        message = f"{what} was kept until {kept_until:%Y-%m-%d %H:%M} UTC"
        job_events.record(session, version.job_id, type="message", message=message, data={})
    session.flush()
    return len(expired)


def _repeat_steps(session: Session, version: MixVersion) -> None:
    """Let a retry do all steps again, since their results are gone."""
    ended = JobEvent.data.contains({"phase": "ended"})
    for event in session.scalars(
        select(JobEvent).where(JobEvent.job_id == version.job_id, JobEvent.type == "state", ended)
    ):
        event.data = event.data | {"phase": "expired"}


def _has_expired() -> ColumnElement[bool]:
    # Versions that were refused before there was a limit have a report and no time.
    refused = and_(MixVersion.state == MixState.FAILED, MixVersion.kept_until < func.now())
    stopped = and_(
        _failed(),
        MixVersion.gate_report_digest.is_(None),
        MixVersion.finished_at < datetime.now(UTC) - _days(),
    )
    return and_(or_(refused, stopped), MixVersion.assembled_digest.is_not(None))


def _failed() -> ColumnElement[bool]:
    return MixVersion.state.in_(RETRIED_STATES)


def _days() -> timedelta:
    return timedelta(days=settings().candidate_days)
