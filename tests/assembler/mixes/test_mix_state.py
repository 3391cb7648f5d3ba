"""The state of a mix version only moves forward and never leaves a final state."""

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import job_events, mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import RETRIED_STATES, MixState, MixVersion
from registry.blobs.blobs import LocalBlobs
from registry.errors import Conflict
from tests.assembler import rows


@pytest.fixture
def version(session: Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs)
    experts = ["expert-1", "expert-2"]
    wish = NewMix(name="mine", family="tiny", experts=experts)
    return mixes.request(session, blobs, wish)


def test_a_finished_step_is_not_entered_again(session: Session, version: MixVersion) -> None:
    assert mix_state.begin(session, version.id, step="assemble")
    assert version.state is MixState.ASSEMBLING
    mix_state.complete(session, version.id, step="assemble", assembled_digest="a" * 64)
    assert not mix_state.begin(session, version.id, step="assemble")
    assert version.assembled_digest == "a" * 64


def test_a_result_after_the_cancellation_is_refused(session: Session, version: MixVersion) -> None:
    mix_state.begin(session, version.id, step="assemble")
    mixes.cancel(session, "mine@1")
    with pytest.raises(Conflict):
        mix_state.complete(session, version.id, step="assemble", assembled_digest="a" * 64)
    assert version.assembled_digest is None


def test_a_final_state_stays(session: Session, version: MixVersion) -> None:
    mix_state.finish(session, version.id, state=MixState.FAILED, error="first")
    mix_state.finish(session, version.id, state=MixState.SUCCEEDED)
    mix_state.report(session, version.id, progress={"step": 1})
    assert (version.state, version.error, version.progress) == (MixState.FAILED, "first", None)
    assert not mix_state.begin(session, version.id, step="gate")
    assert mix_state.is_over(session, version.id)


@pytest.mark.parametrize("state", RETRIED_STATES)
def test_a_retry_queues_a_version_again(
    session: Session, version: MixVersion, state: MixState
) -> None:
    mix_state.begin(session, version.id, step="assemble")
    mix_state.complete(session, version.id, step="assemble", assembled_digest="a" * 64)
    mix_state.finish(session, version.id, state=state, error="the disk is full")
    mix_state.retry(session, version.id)
    assert (version.state, version.error, version.finished_at) == (MixState.QUEUED, None, None)
    assert not mix_state.begin(session, version.id, step="assemble"), "it is not repeated"
    assert mix_state.begin(session, version.id, step="finetune")


def test_retrying_what_goes_on_changes_nothing(session: Session, version: MixVersion) -> None:
    mix_state.begin(session, version.id, step="assemble")
    mix_state.retry(session, version.id)
    assert version.state is MixState.ASSEMBLING
    assert job_events.newest_phase(session, version.job_id) == "began"


def test_a_success_is_not_retried(session: Session, version: MixVersion) -> None:
    mix_state.finish(session, version.id, state=MixState.SUCCEEDED)
    with pytest.raises(Conflict, match="nothing to retry"):
        mix_state.retry(session, version.id)


def test_what_the_gate_refused_is_not_retried(session: Session, version: MixVersion) -> None:
    mix_state.keep_report(session, version.id, digest="a" * 64)
    mix_state.finish(session, version.id, state=MixState.FAILED, error="diverges")
    with pytest.raises(Conflict, match="another policy"):
        mix_state.retry(session, version.id)
    assert version.state is MixState.FAILED
