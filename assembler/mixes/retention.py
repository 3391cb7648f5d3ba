"""Keep the candidates that a gate refused for a while, to inspect, compare, export or overrule.

After that the version drops the digests of its checkpoints. The tensors stay: the store removes
nothing.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assembler.mixes import job_events
from assembler.tables import MixState, MixVersion
from registry.errors import Conflict
from registry.settings import settings


def until() -> datetime:
    """Return the time until which a candidate is kept that is refused now."""
    return datetime.now(UTC) + timedelta(days=settings().candidate_days)


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


def remove_expired(session: Session) -> int:
    """Drop the candidates whose time is over, and return their number. Their reports stay."""
    expired = session.scalars(
        select(MixVersion)
        .where(
            MixVersion.state == MixState.FAILED,
            MixVersion.kept_until < func.now(),
            MixVersion.assembled_digest.is_not(None),
        )
        .with_for_update(skip_locked=True)
    ).all()
    for version in expired:
        version.assembled_digest = version.finetuned_digest = version.compressed_digest = None
        message = f"the refused candidate was kept until {version.kept_until:%Y-%m-%d %H:%M} UTC"
        job_events.record(session, version.job_id, type="message", message=message, data={})
    session.flush()
    return len(expired)
