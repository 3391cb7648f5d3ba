"""Removes all that nobody needs any more, or says what it would remove. One process at a time."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy import make_url, select

from assembler.mixes import retention
from assembler.tables import MixVersion
from engine.serving.tables import LIVE_STATES, Deployment
from registry.blobs.blobs import LocalBlobs, StoreUpkeep
from registry.database import db
from registry.errors import Unavailable
from registry.settings import settings
from service.housekeeping import blob_sweep, local_files, needed_blobs, old_rows
from service.housekeeping.local_files import Entry

# Answers may be repeated for a day; see `service.web.idempotency`.
ANSWER_LIFETIME = timedelta(hours=24)
LOCK = "nexusmix:house-keeping"


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be: what it is, how many, and their bytes where they are known.

    `note` says why nothing was removed.
    """

    what: str
    num: int
    num_bytes: int | None = None
    note: str = ""


@contextmanager
def alone(task: str = "gc") -> Iterator[bool]:
    """Yield whether this process is the only one that does a task on the database.

    The lock ends with its session, however the process ends.
    """
    address = make_url(settings().database_url or "").set(drivername="postgresql")
    try:
        connection = psycopg.connect(
            address.render_as_string(hide_password=False), autocommit=True, connect_timeout=5
        )
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database does not answer: {error}") from error
    with connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_lock_key(task),)).fetchone()
        yield row is not None and bool(row[0])


def collect(blobs: StoreUpkeep, *, dry_run: bool) -> list[Removal]:
    """Remove rows first, then the blobs that they named, then files of this host.

    The caller is `alone`. Raises Unavailable if the store or the database does not answer.
    """
    return [*collect_shared(blobs, dry_run=dry_run), *collect_files(dry_run=dry_run)]


def collect_shared(blobs: StoreUpkeep, *, dry_run: bool) -> list[Removal]:
    """Remove rows and blobs, which all hosts share. The caller is `alone`; raises as `collect`."""
    return [*_rows(dry_run=dry_run), *_blobs(blobs, dry_run=dry_run)]


def _rows(*, dry_run: bool) -> Iterator[Removal]:
    now = datetime.now(UTC)
    before = now - timedelta(days=settings().event_days)
    with db.transaction(maintenance=True) as session:
        num = old_rows.expired_candidates(session, dry_run=dry_run)
        yield Removal("candidates whose time is over", num)
        num = old_rows.unready_uploads(session, dry_run=dry_run)
        yield Removal("uploads whose time is over", num)
        num = old_rows.events(session, before=before, dry_run=dry_run)
        yield Removal("events of jobs", num)
        num = old_rows.repeatable_answers(session, before=now - ANSWER_LIFETIME, dry_run=dry_run)
        yield Removal("repeatable answers", num)
        num = old_rows.sign_ins(session, before=now, dry_run=dry_run)
        yield Removal("sessions of browsers that ended", num)
        num = old_rows.records(session, before=before, dry_run=dry_run)
        yield Removal("records of house-keeping", num)
    url = settings().database_url
    assert url is not None, "the lock is in the database"
    num = old_rows.ended_workflows(url, before=before, dry_run=dry_run)
    yield Removal("ended workflows", num)


def _blobs(blobs: StoreUpkeep, *, dry_run: bool) -> Iterator[Removal]:
    before = datetime.now(UTC) - _grace()
    num = blobs.remove_unaccepted(before=before, dry_run=dry_run)
    yield Removal("uploads to the bucket that nobody announced", num)
    with db.transaction() as session:
        cutoff = blob_sweep.cutoff(session, grace=_grace())

    def find_needed() -> needed_blobs.NeededBlobs:
        with db.transaction() as session:
            return needed_blobs.find(session, blobs)

    swept = blob_sweep.sweep(blobs, find_needed, cutoff=cutoff, dry_run=dry_run)
    if swept.deleted and not dry_run:
        with db.transaction() as session:
            old_rows.forget(session, [blob.digest for blob in swept.deleted])
    if swept.unread:
        note = (
            f"nothing was touched: {len(swept.unread)} manifests cannot be read, so it is not known"
            " what is needed; `nexusmix fsck` names them"
        )
        yield Removal("blobs that nothing needs", 0, 0, note)
        return
    num_bytes = sum(blob.num_bytes for blob in swept.aside)
    note = f"set aside; deleted in {settings().grace_hours:g} hours unless somebody needs them"
    yield Removal("blobs that nothing needs", len(swept.aside), num_bytes, note)
    num_bytes = sum(blob.num_bytes for blob in swept.deleted)
    yield Removal("blobs that were set aside", len(swept.deleted), num_bytes)


def collect_files(*, dry_run: bool) -> list[Removal]:
    """Remove files of this host that nobody needs: each host has its own."""
    return list(_files(dry_run=dry_run))


def _files(*, dry_run: bool) -> Iterator[Removal]:
    config, now = settings(), datetime.now(UTC)
    before = now - _grace()
    job_ids, serving, deployments = _in_use()
    for what, entries in (
        ("half uploads", local_files.half_uploads(config.blobs_path, before=before)),
        ("half filled folders", local_files.unfinished_folders(config.cache_path, before=before)),
        (
            "checkpoints of jobs that ended",
            local_files.job_folders(config.cache_path, wanted=job_ids, before=before),
        ),
        (
            "cached results",
            local_files.oldest_cached(
                config.cache_path,
                max_bytes=config.cache_bytes,
                keep={config.cache_path / "serving" / digest for digest in serving},
            ),
        ),
        ("copies of blobs of the bucket", _fetched()),
        (
            "logs",
            local_files.old_logs(
                config.home / "logs",
                wanted={
                    *(config.home / "logs" / "jobs" / job_id for job_id in job_ids),
                    *(config.home / "logs" / "deployments" / f"{n}.log" for n in deployments),
                },
                before=now - timedelta(days=config.log_days),
            ),
        ),
    ):
        if not dry_run:
            for entry in entries:
                entry.remove()
        yield Removal(what, len(entries), sum(entry.num_bytes for entry in entries))
    long = local_files.long_logs(config.home, max_bytes=config.log_bytes)
    if not dry_run:
        for path in long:
            local_files.rotate(path)
    yield Removal("long logs", len(long), note="rotated; the last ones are kept")


def _fetched() -> list[Entry]:
    config = settings()
    if config.s3_bucket is None:
        return []
    cache = LocalBlobs(config.blobs_path)
    return local_files.oldest_fetched(cache, max_bytes=config.s3_cache_bytes)


def _in_use() -> tuple[set[str], set[str], set[int]]:
    """Return jobs that may go on, and manifests and ids of live deployments."""
    with db.transaction() as session:
        may_go_on = session.scalars(select(MixVersion.job_id).where(retention.may_go_on()))
        live = session.execute(
            select(Deployment.id, Deployment.manifest_digest).where(
                Deployment.state.in_(LIVE_STATES)
            )
        ).all()
        return set(may_go_on), {digest for _, digest in live}, {number for number, _ in live}


def _grace() -> timedelta:
    return timedelta(hours=settings().grace_hours)


def _lock_key(task: str) -> int:
    """Return the key of a task's advisory lock: a signed 64-bit number, as PostgreSQL asks."""
    name = hashlib.sha256(f"{LOCK}:{task}".encode()).digest()
    return int.from_bytes(name[:8], "big", signed=True)
