"""Keeps house in the background of the web process: removes what nobody needs, and scrubs.

On one database only one process at a time works on rows and blobs; each host has its own files.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from registry.blobs import blob_stores
from registry.database import db
from registry.errors import NexusmixError
from registry.settings import settings
from service.housekeeping import collection, scrub
from service.tables import HousekeepingRun

log = structlog.get_logger(__name__)

KIND = "gc"
ROUND_SECONDS = 60.0


class Janitor:
    """The thread that keeps house."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._next_local = time.monotonic() + ROUND_SECONDS
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        """Begin; the first round is after ROUND_SECONDS, when the service has started."""
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end. It ends within a moment, or with the process."""
        self._stopped.set()

    def work(self) -> None:
        """Do what is due. Raises NexusmixError and the errors of the database and the disk."""
        period = timedelta(hours=settings().housekeeping_hours)
        if period and time.monotonic() >= self._next_local:
            collection.collect_files(dry_run=False)
            self._next_local = time.monotonic() + period.total_seconds()
        if period and _is_due(period):
            with collection.alone() as alone:
                if alone:
                    collect()
        if rate := settings().scrub_bytes_per_second:
            with collection.alone(scrub.KIND) as alone:
                if alone:
                    scrub.go_on(
                        blob_stores.store(),
                        bytes_per_second=rate,
                        seconds=ROUND_SECONDS,
                        stopped=self._stopped,
                    )

    def _run(self) -> None:
        while not self._stopped.wait(ROUND_SECONDS):
            try:
                self.work()
            except (NexusmixError, SQLAlchemyError, OSError) as error:
                log.warning("house-keeping is tried again", error=str(error))


@contextmanager
def at_work() -> Iterator[None]:
    """Keep house until the block ends."""
    janitor = Janitor()
    janitor.start()
    try:
        yield
    finally:
        janitor.stop()


def collect() -> None:
    """Remove rows and blobs that nobody needs, and record what was removed, or the error.

    The caller is `collection.alone`.
    """
    with db.transaction() as session:
        run = HousekeepingRun(kind=KIND, result={})
        session.add(run)
        session.flush()
        run_id = run.id
    removals, error = [], None
    try:
        removals = collection.collect_shared(blob_stores.store(), dry_run=False)
    except NexusmixError as caught:
        error = caught.detail
    with db.transaction() as session:
        run = session.get_one(HousekeepingRun, run_id)
        run.finished_at = datetime.now(UTC)
        run.error = error
        run.result = {"removals": [asdict(removal) for removal in removals]}
    log.info("house was kept", removed={r.what: r.num for r in removals if r.num}, error=error)


def _is_due(period: timedelta) -> bool:
    with db.transaction() as session:
        last = session.scalar(
            select(func.max(HousekeepingRun.started_at)).where(HousekeepingRun.kind == KIND)
        )
    return last is None or datetime.now(UTC) - last >= period
