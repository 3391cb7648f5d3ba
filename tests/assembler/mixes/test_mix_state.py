"""The state of a mix version only moves forward and never leaves a final state."""

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState, MixVersion
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
    mixes.cancel(session, "mine")
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
