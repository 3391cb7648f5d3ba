"""Rows that nobody reads any more are deleted; those of work that goes on stay."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from assembler.jobs import queues
from assembler.mixes import job_events, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import JobEvent, MixState, MixVersion
from registry.blobs.blobs import LocalBlobs
from registry.database import db
from registry.database.tables import DownloadableBlob, SentBlob
from service.housekeeping import old_rows
from service.tables import (
    ApiKey,
    BrowserSession,
    HousekeepingRun,
    IdempotentRequest,
    SignInLink,
)
from tests.assembler import rows
from tests.assembler.job_store import empty_store

LONG_AGO = datetime.now(UTC) - timedelta(days=100)
LIMIT = datetime.now(UTC) - timedelta(days=90)


@pytest.fixture
def version(session: Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs)
    spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
    return mixes.request(session, blobs, spec)


def test_events_of_ended_jobs_are_deleted(session: Session, version: MixVersion) -> None:
    for job_id in (version.job_id, "embed-1"):
        for _ in range(2):
            job_events.record(session, job_id, type="message", message="done")
    session.query(JobEvent).update({"created_at": LONG_AGO})
    job_events.record(session, "embed-1", type="message", message="new")
    assert old_rows.events(session, before=LIMIT, dry_run=True) == 2
    assert old_rows.events(session, before=LIMIT, dry_run=False) == 2
    assert len(job_events.events_after(session, version.job_id)) == 2, "it has not ended"
    version.state = MixState.SUCCEEDED
    session.flush()
    assert old_rows.events(session, before=LIMIT, dry_run=False) == 2
    assert [event.message for event in session.query(JobEvent)] == ["new"]


def test_answers_that_may_not_be_repeated_are_deleted(session: Session) -> None:
    for key, created_at in (("old", LONG_AGO), ("new", datetime.now(UTC))):
        session.add(
            IdempotentRequest(
                api_key_id=1,
                path="/mixes",
                key=key,
                body_digest="0",
                status=202,
                response={},
                created_at=created_at,
            )
        )
    session.flush()
    assert old_rows.repeatable_answers(session, before=LIMIT, dry_run=True) == 1
    assert old_rows.repeatable_answers(session, before=LIMIT, dry_run=False) == 1
    assert [row.key for row in session.query(IdempotentRequest)] == ["new"]


def test_expired_sessions_and_links_are_deleted(session: Session, database: str) -> None:
    now = datetime.now(UTC)
    key = ApiKey(name="me", prefix="nxm_a", sha256="k", scopes=["read"])
    session.add(key)
    session.flush()
    for name, expires_at in (("old", LONG_AGO), ("new", now + timedelta(hours=1))):
        session.add(BrowserSession(sha256=name, api_key_id=key.id, expires_at=expires_at))
        session.add(SignInLink(sha256=name, api_key_id=key.id, expires_at=expires_at))
    session.flush()
    assert old_rows.sign_ins(session, before=now, dry_run=True) == 2
    assert old_rows.sign_ins(session, before=now, dry_run=False) == 2
    assert [row.sha256 for row in session.query(BrowserSession)] == ["new"]


def test_old_records_and_notes_about_deleted_blobs_are_deleted(session: Session) -> None:
    for started_at in (LONG_AGO, datetime.now(UTC)):
        run = HousekeepingRun(kind="gc", result={}, started_at=started_at, finished_at=started_at)
        session.add(run)
    for digest in ("gone", "kept"):
        session.add(SentBlob(sender=1, digest=digest))
        session.add(DownloadableBlob(digest=digest))
    session.flush()
    assert old_rows.records(session, before=LIMIT, dry_run=False) == 1
    old_rows.forget(session, ["gone"])
    assert [row.digest for row in session.query(SentBlob)] == ["kept"]
    assert [row.digest for row in session.query(DownloadableBlob)] == ["kept"]


def test_ended_workflows_are_deleted(database: str) -> None:
    kinds = {
        "made": (queues.MAKE_MIX, "SUCCESS"),
        "failed": (queues.MAKE_MIX, "ERROR"),
        "waiting": (queues.MAKE_MIX, "ENQUEUED"),
        "embedded": (queues.EMBED_DOMAIN, "SUCCESS"),
        "not embedded": (queues.EMBED_DOMAIN, "ERROR"),
        "new": (queues.MAKE_MIX, "SUCCESS"),
    }
    with empty_store(database) as client:
        for workflow_id, (name, _) in kinds.items():
            client.enqueue(
                {"workflow_name": name, "queue_name": queues.HEAVY, "workflow_id": workflow_id}, 1
            )
        with db.transaction() as session:
            for workflow_id, (_, status) in kinds.items():
                ended = datetime.now(UTC) if workflow_id == "new" else LONG_AGO
                session.execute(
                    text(
                        "UPDATE dbos.workflow_status SET status = :status, updated_at = :ended,"
                        " completed_at = :ended WHERE workflow_uuid = :id"
                    ),
                    {"status": status, "id": workflow_id, "ended": int(ended.timestamp() * 1000)},
                )
        assert old_rows.ended_workflows(database, before=LIMIT, dry_run=True) == 3
        assert old_rows.ended_workflows(database, before=LIMIT, dry_run=False) == 3
        kept = {workflow.workflow_id for workflow in client.list_workflows()}
        assert kept == {"waiting", "not embedded", "new"}
