"""Workers count as long as they renew their leases."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from assembler.mixes import worker_presence
from assembler.tables import Worker


def test_only_workers_that_renew_their_leases_count(session: Session) -> None:
    assert worker_presence.count(session) == 0
    session.add_all(
        Worker(executor_id=name, renewed_at=datetime.now(UTC) - timedelta(seconds=seconds))
        for name, seconds in (("one", 0), ("two", 1), ("gone", 60))
    )
    session.flush()
    assert worker_presence.count(session) == 2
