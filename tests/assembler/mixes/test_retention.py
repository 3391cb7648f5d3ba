"""A refused candidate is kept for a set time and then deleted."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.mixes import job_events, mix_state, mixes, overrides, retention
from assembler.mixes.new_mix import NewMix
from assembler.mixes.waivers import Waiver
from assembler.tables import RETRIED_STATES, MixState, MixVersion
from engine.gates.report import Failure
from registry.blobs.blobs import LocalBlobs
from registry.errors import Conflict
from registry.settings import settings
from tests.assembler import rows
from tests.assembler.published import assemble, keep_report

FAILURE = Failure(
    domain="expert-1", metric="served.fdt_75", value=3, limit="at least", threshold=24
)


@pytest.fixture
def refused(session: Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs)
    request = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
    version = mixes.request(session, blobs, request)
    assemble(session, blobs, version)
    keep_report(blobs, version, failures=[FAILURE])
    assert version.gate_report_digest is not None
    session.flush()
    mix_state.keep_report(session, version.id, digest=version.gate_report_digest)
    mix_state.finish(session, version.id, state=MixState.FAILED, error=str(FAILURE))
    return mixes.get(session, "mine@1")


def override(session: Session, blobs: LocalBlobs) -> MixVersion:
    scope = [Waiver(domain=FAILURE.domain, metric=FAILURE.metric)]
    return overrides.override(session, blobs, "mine@1", scope=scope, reason="a trial", by="anna")


def test_a_candidate_is_kept_for_the_days_of_the_settings(
    session: Session, refused: MixVersion
) -> None:
    assert refused.kept_until is not None
    days = (refused.kept_until - datetime.now(UTC)) / timedelta(days=1)
    assert days == pytest.approx(settings().candidate_days, abs=0.1)
    assert retention.is_kept(refused)
    assert retention.remove_expired(session) == 0


def test_afterwards_only_its_report_is_kept(
    session: Session, blobs: LocalBlobs, refused: MixVersion
) -> None:
    refused.kept_until = datetime.now(UTC) - timedelta(minutes=1)
    session.flush()
    with pytest.raises(Conflict, match="its candidate was kept until"):
        override(session, blobs)
    assert retention.remove_expired(session) == 1
    assert retention.remove_expired(session) == 0
    assert refused.assembled_digest is None
    assert refused.gate_report_digest is not None
    assert not retention.is_kept(refused)
    messages = [event.message for event in job_events.events_after(session, refused.job_id)]
    assert "the refused candidate was kept until" in " ".join(messages)


def test_an_overridden_candidate_is_not_deleted(
    session: Session, blobs: LocalBlobs, refused: MixVersion
) -> None:
    assert override(session, blobs).kept_until is None
    assert retention.remove_expired(session) == 0
    assert refused.assembled_digest is not None


@pytest.mark.parametrize("state", RETRIED_STATES)
def test_what_an_ended_version_had_made_is_kept_as_long(
    session: Session, blobs: LocalBlobs, refused: MixVersion, state: MixState
) -> None:
    refused.state, refused.gate_report_digest, refused.kept_until = state, None, None
    job_events.end_step(session, refused.job_id, step="assemble")
    session.flush()
    assert session.scalar(select(MixVersion.id).where(retention.may_go_on())) == refused.id
    assert retention.num_expired(session) == retention.remove_expired(session) == 0
    refused.finished_at = datetime.now(UTC) - timedelta(days=settings().candidate_days, seconds=1)
    session.flush()
    assert session.scalar(select(MixVersion.id).where(retention.may_go_on())) is None
    assert retention.num_expired(session) == retention.remove_expired(session) == 1
    assert refused.assembled_digest is None
    mix_state.retry(session, refused.id)
    assert job_events.begin_step(session, refused.job_id, step="assemble"), "it is done again"
    messages = [event.message for event in job_events.events_after(session, refused.job_id)]
    assert "what it had made was kept until" in " ".join(messages)
