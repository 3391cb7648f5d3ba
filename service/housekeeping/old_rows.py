"""Removes rows that nobody reads any more: events, repeatable answers, ended workflows."""

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, delete, func, select, text
from sqlalchemy.orm import Session

from assembler.jobs import queues
from assembler.mixes import retention
from assembler.tables import UNFINISHED_STATES, JobEvent, MixVersion
from registry.catalog import unready
from registry.database import db
from registry.database.tables import DownloadableBlob, SentBlob
from service.tables import (
    BlobFault,
    BrowserSession,
    HousekeepingRun,
    IdempotentRequest,
    SignInLink,
)

if TYPE_CHECKING:
    from dbos import DBOSClient

# DBOS deletes in one transaction; more at once would hold locks for long.
MAX_WORKFLOWS = 1000


def expired_candidates(session: Session, *, dry_run: bool) -> int:
    """Let versions forget the checkpoints whose time is over; return their number."""
    return retention.num_expired(session) if dry_run else retention.remove_expired(session)


def unready_uploads(session: Session, *, dry_run: bool) -> int:
    """Delete the uploads that were never ready and whose time is over; return their number."""
    return unready.num_expired(session) if dry_run else unready.remove_expired(session)


def events(session: Session, *, before: datetime, dry_run: bool) -> int:
    """Delete the events of jobs that ended; return their number.

    A job that goes on needs its events: they say which steps have ended.
    """
    unfinished = select(MixVersion.job_id).where(MixVersion.state.in_(UNFINISHED_STATES))
    old = and_(JobEvent.created_at < before, JobEvent.job_id.not_in(unfinished))
    return _delete(session, JobEvent, old, dry_run=dry_run)


def repeatable_answers(session: Session, *, before: datetime, dry_run: bool) -> int:
    """Delete the answers to requests that may not be repeated any more; return their number."""
    old = IdempotentRequest.created_at < before
    return _delete(session, IdempotentRequest, old, dry_run=dry_run)


def sign_ins(session: Session, *, before: datetime, dry_run: bool) -> int:
    """Delete sessions of browsers, and links that begin one, that have expired."""
    return sum(
        _delete(session, table, table.expires_at < before, dry_run=dry_run)
        for table in (BrowserSession, SignInLink)
    )


def records(session: Session, *, before: datetime, dry_run: bool) -> int:
    """Delete what house-keeping did so long ago; return the number of rows."""
    old = and_(HousekeepingRun.finished_at < before, HousekeepingRun.started_at < before)
    return _delete(session, HousekeepingRun, old, dry_run=dry_run)


def forget(session: Session, digests: Collection[str]) -> None:
    """Delete what is noted about blobs that were deleted: who has sent them, who may have them."""
    for table in (SentBlob, DownloadableBlob, BlobFault):
        session.execute(delete(table).where(table.digest.in_(digests)))


def ended_workflows(url: str, *, before: datetime, dry_run: bool) -> int:
    """Delete the durable workflows of jobs that ended; return their number.

    A failed embedding stays: without its workflow the dispatcher would try it again for ever.
    """
    with db.transaction() as session:
        if session.scalar(text("SELECT to_regclass('dbos.workflow_status')")) is None:
            return 0  # no worker has run yet
    from dbos import DBOSClient  # it takes half a second to load

    client = DBOSClient(
        system_database_url=url,
        application_name=queues.APPLICATION,
        retry_connection_errors=False,
    )
    try:
        num = 0
        while ids := _ended(client, before):
            num += len(ids)
            if dry_run:
                break
            client.delete_workflows(ids)
        return num
    finally:
        client.destroy()


def _ended(client: "DBOSClient", before: datetime) -> list[str]:
    """Return ids of workflows that ended before a time, at most MAX_WORKFLOWS."""
    found = client.list_workflows(
        status=["SUCCESS", "CANCELLED", "ERROR"],
        completed_before=before.isoformat(),
        limit=MAX_WORKFLOWS,
        load_input=False,
        load_output=False,
    )
    return [
        workflow.workflow_id
        for workflow in found
        if workflow.status == "SUCCESS" or workflow.name != queues.EMBED_DOMAIN
    ]


def _delete(
    session: Session,
    table: type[JobEvent | IdempotentRequest | HousekeepingRun | BrowserSession | SignInLink],
    condition: ColumnElement[bool],
    *,
    dry_run: bool,
) -> int:
    num = session.scalar(select(func.count()).select_from(table).where(condition)) or 0
    if num and not dry_run:
        session.execute(delete(table).where(condition))
    return num
