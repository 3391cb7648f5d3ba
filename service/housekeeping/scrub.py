"""Reads the whole store slowly, again and again, and records what is missing or damaged.

Disks lose bytes without a word, and a tensor may not be read for months. A fault that is found
early is repaired while its owner, or a backup, still has the bytes.
"""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from registry.blobs.blobs import StoredBlob, StoreUpkeep
from registry.database import db
from service.housekeeping import fsck, needed_blobs
from service.housekeeping.fsck import Fault
from service.tables import BlobFault, HousekeepingRun

log = structlog.get_logger(__name__)

KIND = "scrub"
# A new pass begins no earlier than this after the beginning of the last one.
PASS_EVERY = timedelta(days=7)


class Stopped(Exception):
    """The process ends; the pass goes on later from the last whole blob."""


class Pace:
    """Waits so that no more than so many bytes a second are read. Raises Stopped."""

    def __init__(self, bytes_per_second: int, stopped: threading.Event) -> None:
        self._rate, self._stopped = bytes_per_second, stopped
        self._free_at = time.monotonic()

    def read(self, num_bytes: int) -> None:
        """Count bytes that were read, and wait for as long as they may take."""
        self._free_at = max(self._free_at, time.monotonic()) + num_bytes / self._rate
        if self._stopped.wait(self._free_at - time.monotonic()):
            raise Stopped


def go_on(
    blobs: StoreUpkeep, *, bytes_per_second: int, seconds: float, stopped: threading.Event
) -> None:
    """Go on with the pass for about so many seconds; begin one if the last is long ago.

    Raises Unavailable if the store does not answer.
    """
    run_id, cursor = _current()
    if run_id is None:
        return
    pace, deadline = Pace(bytes_per_second, stopped), time.monotonic() + seconds
    num, num_bytes = 0, 0
    is_whole = True
    try:
        for blob in _after(blobs, cursor):
            _check(blob, blobs, pace)
            cursor, num, num_bytes = blob.digest, num + 1, num_bytes + blob.num_bytes
            if time.monotonic() > deadline:
                is_whole = False
                break
    except Stopped:
        is_whole = False
    if is_whole:
        _look_for_missing(blobs)
    _save(run_id, cursor, num=num, num_bytes=num_bytes, is_whole=is_whole)


def _current() -> tuple[int | None, str]:
    """Return the pass that goes on, and the last digest that it has read; begin one if it is time.

    None if the last pass began not long ago.
    """
    with db.transaction() as session:
        last = session.scalar(
            select(HousekeepingRun)
            .where(HousekeepingRun.kind == KIND)
            .order_by(HousekeepingRun.id.desc())
            .limit(1)
        )
        if last is None or (
            last.finished_at is not None and datetime.now(UTC) - last.started_at > PASS_EVERY
        ):
            last = HousekeepingRun(kind=KIND, result={"cursor": "", "num": 0, "num_bytes": 0})
            session.add(last)
            session.flush()
        return (None if last.finished_at else last.id), last.result["cursor"]


def _after(blobs: StoreUpkeep, cursor: str) -> Iterator[StoredBlob]:
    return (blob for blob in blobs.stored() if blob.digest > cursor)


def _check(blob: StoredBlob, blobs: StoreUpkeep, pace: Pace) -> None:
    sound = fsck.is_sound(blob.digest, blobs, pace.read)
    if sound is False:
        # Memory may have failed, not the disk.
        sound = fsck.is_sound(blob.digest, blobs, pace.read)
    if sound is False:
        _record(blob.digest, Fault.DAMAGED, blobs)
    else:
        with db.transaction() as session:
            session.execute(delete(BlobFault).where(BlobFault.digest == blob.digest))


def _look_for_missing(blobs: StoreUpkeep) -> None:
    """Record needed blobs that are not there, and forget faults that are mended."""
    stored = {blob.digest for blob in blobs.stored()}
    with db.transaction() as session:
        needed = needed_blobs.find(session, blobs)
    for digest in needed.required - stored:
        if blobs.size(digest) is None:
            _record(digest, Fault.MISSING, blobs)
    with db.transaction() as session:
        mended = session.scalars(select(BlobFault).where(BlobFault.fault == Fault.MISSING))
        for fault in mended.all():
            if fault.digest in stored or fault.digest not in needed.required:
                session.delete(fault)


def _record(digest: str, fault: Fault, blobs: StoreUpkeep) -> None:
    with db.transaction() as session:
        reasons = needed_blobs.find(session, blobs).needed_by.get(digest, [])
    log.error("a blob is not as it was stored", digest=digest, fault=fault, needed_by=reasons)
    values = {"fault": fault.value, "needed_by": {"reasons": reasons}}
    with db.transaction() as session:
        session.execute(
            insert(BlobFault)
            .values(digest=digest, **values)
            .on_conflict_do_update(index_elements=["digest"], set_=values)
        )


def _save(run_id: int, cursor: str, *, num: int, num_bytes: int, is_whole: bool) -> None:
    with db.transaction() as session:
        run = session.get_one(HousekeepingRun, run_id)
        done = run.result
        run.result = {
            "cursor": cursor,
            "num": done["num"] + num,
            "num_bytes": done["num_bytes"] + num_bytes,
        }
        if is_whole:
            run.finished_at = datetime.now(UTC)
