"""Removes blobs that nothing needs, in two steps; uploads and jobs go on meanwhile.

A sweep sets a needless blob aside when it is older than the grace period. Whoever asks for the blob
brings it back. A later sweep deletes it, when it was aside for a whole grace period and is still
needless.

So a blob is safe if the row that names it is committed within the grace period after the blob was
last written or kept. Jobs may take longer; what is younger than a running job is not touched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assembler.tables import UNFINISHED_STATES, MixState, MixVersion
from registry.blobs.blobs import StoredBlob, StoreUpkeep
from registry.database.tables import Projection, ProjectionState
from service.housekeeping.needed_blobs import NeededBlobs

# A clock of the store or of the database may differ from ours by this.
CLOCK_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Sweep:
    """What a sweep of the store set aside and deleted, in blobs and bytes.

    `unread` are the manifests that it could not read. Then it is not known what is needed, and
    nothing was touched.
    """

    aside: tuple[StoredBlob, ...] = ()
    deleted: tuple[StoredBlob, ...] = ()
    unread: tuple[str, ...] = ()


def sweep(
    blobs: StoreUpkeep,
    find_needed: Callable[[], NeededBlobs],
    *,
    cutoff: datetime,
    dry_run: bool = False,
) -> Sweep:
    """Set aside what nothing needs and was written before `cutoff`, and delete what was aside then.

    `find_needed` is called after the store was listed: a row that is committed later names a blob
    that is younger. Raises Unavailable if the store does not answer.
    """
    stored, aside = list(blobs.stored()), list(blobs.aside())
    needed = find_needed()
    if needed.unread:
        return Sweep(unread=tuple(needed.unread))
    needless = [b for b in stored if b.digest not in needed.needed_by and b.written_at < cutoff]
    expired = [b for b in aside if b.digest not in needed.needed_by and b.written_at < cutoff]
    if not dry_run:
        for blob in aside:
            if blob.digest in needed.needed_by:
                blobs.size(blob.digest)  # brings it back
        for blob in expired:
            blobs.delete_aside(blob.digest)
        for blob in needless:
            blobs.set_aside(blob.digest)
    return Sweep(tuple(needless), tuple(expired))


def cutoff(session: Session, *, grace: timedelta) -> datetime:
    """Return the time before which a needless blob was written: a grace period ago, or earlier.

    While jobs run, it is the beginning of the oldest: a job writes blobs that its row names at the
    end of a step.
    """
    now = datetime.now(UTC)
    working = [state for state in UNFINISHED_STATES if state is not MixState.QUEUED]
    mixes = select(func.min(MixVersion.created_at)).where(MixVersion.state.in_(working))
    projections = select(func.min(Projection.created_at)).where(
        Projection.state == ProjectionState.TRAINING
    )
    begun = [session.scalar(query) for query in (mixes, projections)]
    return min(now - grace, *(time for time in begun if time is not None), now) - CLOCK_SLACK
