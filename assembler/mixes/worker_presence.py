"""Tell whether workers are running: each renews its lease every second."""

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from assembler.tables import Worker

# A worker that has not renewed its lease for so long is dead, stopped or cut off.
FRESH = text("interval '10 seconds'")


def count(session: Session) -> int:
    """Return the number of workers that run; 0 means that no job goes on."""
    fresh = select(func.count()).where(Worker.renewed_at > func.now() - FRESH)
    return session.scalar(fresh) or 0
