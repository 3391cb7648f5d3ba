"""What another version made from the same inputs is used, and nothing else."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import earlier_results, mix_state, mixes
from assembler.mixes.earlier_results import checkpoints_path, result_of, take_checkpoints, twins
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState, MixVersion
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import rows

ASSEMBLED = "a" * 64


def ask(session: Session, blobs: LocalBlobs, name: str, **changes: Any) -> MixVersion:
    """Request a mix that is assembled."""
    request = {"family": "tiny", "experts": ["expert-1", "expert-2"], **changes}
    version = mixes.request(session, blobs, NewMix(name=name, **request))
    version.assembled_digest = ASSEMBLED
    session.flush()
    return version


def finetune(session: Session, blobs: LocalBlobs, version: MixVersion) -> None:
    """Give a version the result of a finetune."""
    version.finetuned_digest = tiny.store_manifest(blobs, expert=3).digest
    session.flush()


@pytest.fixture
def first(session: Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs, num_experts=3)
    return ask(session, blobs, "first")


def test_another_policy_needs_no_other_finetune(
    session: Session, blobs: LocalBlobs, first: MixVersion
) -> None:
    second = ask(session, blobs, "second", gates={"prompts_per_domain": 4})
    found = twins(session, second, step="finetune")
    assert [version.id for version in found] == [first.id]
    assert result_of(found, blobs, step="finetune") is None
    finetune(session, blobs, first)
    assert result_of(found, blobs, step="finetune") is first


@pytest.mark.parametrize(
    "changes", [{"finetune": {"tokens": 512}}, {"experts": ["expert-1", "expert-3"]}], ids=str
)
def test_other_inputs_are_no_twin(
    session: Session, blobs: LocalBlobs, first: MixVersion, changes: dict[str, Any]
) -> None:
    assert twins(session, ask(session, blobs, "second", **changes), step="finetune") == []


def test_another_checkpoint_is_no_twin(
    session: Session, blobs: LocalBlobs, first: MixVersion
) -> None:
    second = ask(session, blobs, "second", gates={"prompts_per_domain": 4})
    second.assembled_digest = "b" * 64
    session.flush()
    assert twins(session, second, step="finetune") == []


def test_a_compression_starts_from_the_same_finetune(
    session: Session, blobs: LocalBlobs, first: MixVersion
) -> None:
    second = ask(session, blobs, "second", gates={"prompts_per_domain": 4})
    finetune(session, blobs, second)
    assert twins(session, second, step="compress") == []
    finetune(session, blobs, first)
    assert [version.id for version in twins(session, second, step="compress")] == [first.id]


def test_a_result_with_a_lost_tensor_is_not_used(
    session: Session, blobs: LocalBlobs, first: MixVersion
) -> None:
    finetune(session, blobs, first)
    manifest = tiny.store_manifest(blobs, expert=3)
    blobs.local_path(next(iter(manifest.tensors.values())).digest).unlink()
    assert result_of([first], blobs, step="finetune") is None


def test_checkpoints_of_a_version_that_ended_are_taken_over_once(
    session: Session, blobs: LocalBlobs, first: MixVersion
) -> None:
    second, third = (
        ask(session, blobs, name, gates={"prompts_per_domain": 4}) for name in ("second", "third")
    )
    (checkpoints_path(first.job_id) / "step-00000010").mkdir(parents=True)
    assert take_checkpoints(second, [first]) is None, "the first is still running"
    mix_state.finish(session, first.id, state=MixState.FAILED, error="the disk is full")
    assert take_checkpoints(second, [first]) is first
    assert (checkpoints_path(second.job_id) / "step-00000010").is_dir()
    assert take_checkpoints(third, [first]) is None
    assert earlier_results.checkpoints_path(first.job_id).exists() is False
