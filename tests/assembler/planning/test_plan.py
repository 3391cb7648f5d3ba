"""A plan describes a mix, or all reasons why it cannot be made.

Covers: plan_data.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.assembly.inputs import gather
from assembler.jobs import pipeline
from assembler.mixes import mix_state, mixes
from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.planning import plan
from assembler.planning.plan_data import Plan
from assembler.recipes import presets
from assembler.recipes.recipe import Recipe
from assembler.tables import JobEvent, MixState
from registry.blobs.blobs import LocalBlobs
from registry.catalog import artifacts, experts
from registry.checkpoints import manifests
from registry.errors import NotFound
from tests.assembler import rows

EXPERTS = ["expert-1", "expert-2"]


def ask(session: Session, blobs: LocalBlobs, **changes: Any) -> Plan:
    request = {"name": "mine", "family": "tiny", "experts": EXPERTS, **changes}
    return plan.plan(session, blobs, NewMix(**request))


def kinds(planned: Plan) -> set[str]:
    return {caution.kind for caution in planned.warnings}


def test_a_plan_lists_steps_and_sizes(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    planned = ask(session, blobs)
    assert planned.problems == ()
    assert planned.experts == ("expert-1@1", "expert-2@1")
    assert planned.license == "Apache-2.0"
    assert planned.size is not None
    assert [step.step for step in planned.size.steps] == ["assemble", "finetune", "gate", "deploy"]
    assert planned.size.finetune_tokens == 2 * presets.TOKENS_PER_EXPERT
    assert planned.size.num_active_parameters < planned.size.num_parameters


def test_a_plan_changes_nothing(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    before = sorted(path for path in blobs.root.rglob("*"))
    ask(session, blobs)
    assert sorted(path for path in blobs.root.rglob("*")) == before
    with pytest.raises(NotFound):
        mixes.get(session, "mine")


@pytest.mark.parametrize(
    "preset", ["nexus", "nexus-paper", "linear", "mlp", "btx", "bam", "bam-shared-kv", "merge"]
)
def test_the_estimated_bytes_are_those_of_an_assembly(
    session: Session, blobs: LocalBlobs, preset: Any
) -> None:
    rows.add_all(session, blobs)
    planned = ask(session, blobs, preset=preset, finetune={"tokens": 0})
    assert planned.size is not None
    before = {path.name for path in blobs.root.rglob("*") if path.is_file()}
    mix = pipeline.assemble(_materials(session, blobs, preset=preset), blobs)
    new = {e.digest: e.num_bytes for e in mix.tensors.values() if e.digest[2:] not in before}
    # Equal tensors, such as zeros, share a blob, so the estimate is an upper bound.
    counted = planned.size.steps[0].bytes_kept
    assert sum(new.values()) <= counted <= 1.1 * sum(new.values())
    assert planned.size.num_bytes == mix.num_bytes
    assert planned.size.num_parameters == mix.architecture.num_parameters


def test_all_problems_are_reported_together(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    rows.add_expert(session, blobs, family, number=1, embedded=False)
    planned = ask(
        session,
        blobs,
        name="No Name",
        experts=["expert-1", "nobody", "expert-1"],
        assembly={"experts_per_token": 9, "combine": "convex"},
        finetune={"tokens": -1},
    )
    assert [problem.pointer for problem in planned.problems] == [
        "/finetune/tokens",
        "/name",
        "/family",
        "/experts/0",
        "/experts/1",
        "/experts/2",
        "/experts_per_token",
    ]
    # One known expert is not enough for an estimate.
    assert (planned.size, planned.license) == (None, None)


def test_a_part_to_train_must_exist(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    planned = ask(session, blobs, preset="btx", finetune={"train": "shared"})
    assert [problem.pointer for problem in planned.problems] == ["/finetune/train"]


def test_a_finetune_of_no_tokens_is_no_step(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    size = ask(session, blobs, finetune={"tokens": 0}).size
    assert size is not None
    assert [step.step for step in size.steps] == ["assemble", "gate", "deploy"]


def test_a_compression_is_a_step(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    size = ask(session, blobs, finetune={"tokens": 0}, compress={"min_fdt_75": 8}).size
    assert size is not None
    assert [step.step for step in size.steps] == ["assemble", "compress", "gate", "deploy"]
    more = ask(session, blobs, finetune={"tokens": 0}, compress={"min_fdt_75": 8, "rounds": 80})
    assert more.size is not None
    assert more.size.steps[1].seconds.high > size.steps[1].seconds.high


def test_an_existing_version_is_named(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    mixes.request(session, blobs, NewMix(name="mine", family="tiny", experts=EXPERTS))
    assert ask(session, blobs).existing == "mine@1"
    assert ask(session, blobs, finetune={"tokens": 0}).existing is None


def test_licenses_are_combined_with_warnings(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    rows.add_expert(session, blobs, family, number=3).license = "CC-BY-NC-4.0"
    session.flush()
    planned = ask(session, blobs, experts=[*EXPERTS, "expert-3"])
    assert planned.license == "Apache-2.0 AND CC-BY-NC-4.0"
    (doubt,) = [c.detail for c in planned.warnings if c.kind == "license"]
    assert "brought by expert-3, forbids commercial use" in doubt


def test_similar_domains_give_a_warning(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    third = rows.add_expert(session, blobs, family, number=3, embedded=False)
    first = experts.pin(session, "expert-1")
    rows.embed(session, blobs, third, [1.0] * 384, states_of=first.id, num_documents=2)
    planned = ask(session, blobs, experts=[*EXPERTS, "expert-3"])
    (alike,) = [c for c in planned.warnings if c.kind == "collinear-domains"]
    assert "'expert-1' and 'expert-3'" in alike.detail
    assert alike.value == pytest.approx(1)
    assert {"condition", "few-documents"} <= kinds(planned)
    assert "condition" not in kinds(ask(session, blobs))


def test_an_expert_equal_to_its_seed_gives_a_warning(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    experts.pin(session, "expert-2").manifest_digest = family.seed_digest
    session.flush()
    (caution,) = [c for c in ask(session, blobs).warnings if c.kind == "nothing-to-mix"]
    assert caution.detail.startswith("'expert-2'")


def test_text_that_is_read_often_gives_a_warning(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert "little-text" in kinds(ask(session, blobs, finetune={"tokens": 1_000_000}))
    assert "little-text" not in kinds(ask(session, blobs, finetune={"tokens": 0}))


def test_time_estimates_are_rough_before_the_first_mix(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    size = ask(session, blobs).size
    assert size is not None
    assert all(step.seconds.basis.startswith("rough") for step in size.steps)
    _make(session, blobs, seconds={"assemble": 2.0, "finetune": 10.0})
    size = ask(
        session, blobs, name="other", finetune={"tokens": 4 * presets.TOKENS_PER_EXPERT}
    ).size
    assert size is not None
    assemble, finetune, gate, _ = (step.seconds for step in size.steps)
    assert (assemble.low, assemble.high) == pytest.approx((2, 2))
    # Twice the tokens take at least as long and at most twice as long.
    assert (finetune.low, finetune.high) == pytest.approx((10, 20))
    assert finetune.basis == "from 1 of this service's earlier mixes"
    assert gate.basis.startswith("rough")


def test_a_change_of_a_mix_is_planned(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    extension = MixChange(base="mine@1", joining="expert-3", finetune={"tokens": 0})
    planned = plan.plan(session, blobs, extension)
    assert (planned.name, [p.pointer for p in planned.problems]) == ("mine", ["/base"])
    _make(session, blobs, seconds={})
    planned = plan.plan(session, blobs, extension)
    assert planned.problems == ()
    assert planned.experts == ("expert-1@1", "expert-2@1", "expert-3@1")
    assert planned.size is not None
    whole = ask(session, blobs, experts=[*EXPERTS, "expert-3"], finetune={"tokens": 0}).size
    assert whole is not None
    assert planned.size.num_parameters == whole.num_parameters


def test_a_change_finetunes_on_all_its_experts(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    _make(session, blobs, seconds={})
    planned = plan.plan(session, blobs, MixChange(base="mine@1", joining="expert-3"))
    assert planned.size is not None
    assert planned.size.finetune_tokens == 3 * presets.TOKENS_PER_EXPERT


def _materials(session: Session, blobs: LocalBlobs, *, preset: Any) -> Any:
    wish = NewMix(name="mine", family="tiny", experts=EXPERTS, preset=preset)
    version = mixes.request(session, blobs, wish)
    return gather(session, Recipe.model_validate(version.recipe))


def _make(session: Session, blobs: LocalBlobs, *, seconds: dict[str, float]) -> None:
    """Add a finished mix whose steps took `seconds`."""
    version = mixes.request(session, blobs, NewMix(name="mine", family="tiny", experts=EXPERTS))
    now = datetime.now(UTC)
    for step, took in seconds.items():
        for phase, moment in (("began", now), ("ended", now + timedelta(seconds=took))):
            data = {"step": step, "phase": phase}
            event = JobEvent(job_id=version.job_id, type="state", message=phase, data=data)
            event.created_at = moment
            session.add(event)
    version.assembled_digest = manifests.store(
        blobs, pipeline.assemble(gather(session, Recipe.model_validate(version.recipe)), blobs)
    )
    artifact = artifacts.register(
        session,
        manifest_digest=version.assembled_digest,
        recipe=version.recipe,
        recipe_digest=version.recipe_digest,
        gate_report_digest="0" * 64,
    )
    version.artifact_id = artifact.id
    mix_state.finish(session, version.id, state=MixState.SUCCEEDED)
