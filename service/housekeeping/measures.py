"""Metrics of house-keeping. They are read from the database and the disk at each scrape."""

import shutil

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from registry.database import db
from registry.errors import NexusmixError
from registry.settings import settings
from service.housekeeping import janitor, scrub
from service.housekeeping.fsck import Fault
from service.tables import BlobFault, HousekeepingRun

KINDS = (janitor.KIND, scrub.KIND)

STARTED = Gauge(
    "nexusmix_housekeeping_started_timestamp_seconds",
    "When the last run of a kind began: `gc` removes what nobody needs, `scrub` reads the store.",
    ["kind"],
)
SECONDS = Gauge(
    "nexusmix_housekeeping_seconds", "How long the last run of a kind took that ended.", ["kind"]
)
FREED = Gauge("nexusmix_housekeeping_freed_bytes", "Bytes that the last `gc` removed.")
FAULTS = Gauge(
    "nexusmix_faulty_blobs", "Blobs that are missing or damaged, as far as is known.", ["fault"]
)
FREE = Gauge("nexusmix_disk_free_bytes", "Free bytes on the disk of the data folder.")
RESERVE = Gauge("nexusmix_disk_reserve_bytes", "Free bytes below which no tensors are taken.")

log = structlog.stdlib.get_logger(__name__)


def update() -> None:
    """Read the present values. Those of the database stay as they were while it is away."""
    if settings().home.exists():
        FREE.set(shutil.disk_usage(settings().home).free)
    RESERVE.set(settings().disk_reserve_bytes)
    try:
        with db.transaction() as session:
            _read(session)
    except (NexusmixError, SQLAlchemyError) as error:
        log.warning("metrics of house-keeping are not up to date", error=str(error))


def _read(session: Session) -> None:
    for kind in KINDS:
        newest = (
            select(HousekeepingRun)
            .where(HousekeepingRun.kind == kind)
            .order_by(HousekeepingRun.id.desc())
            .limit(1)
        )
        if run := session.scalar(newest):
            STARTED.labels(kind).set(run.started_at.timestamp())
        ended = session.scalar(newest.where(HousekeepingRun.finished_at.is_not(None)))
        if ended is not None and ended.finished_at is not None:
            SECONDS.labels(kind).set((ended.finished_at - ended.started_at).total_seconds())
            if kind == janitor.KIND:
                removals = ended.result.get("removals", [])
                FREED.set(sum(removal["num_bytes"] or 0 for removal in removals))
    counts = select(BlobFault.fault, func.count()).group_by(BlobFault.fault)
    found = {fault: number for fault, number in session.execute(counts)}
    for fault in Fault:
        FAULTS.labels(fault.value).set(found.get(fault.value, 0))
