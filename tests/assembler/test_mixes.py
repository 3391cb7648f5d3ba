"""What a request for a mix is answered with, before any work is done."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler import jobs, mixes, progress
from assembler.tables import MixState, MixVersion
from engine.gates import Policy
from registry import artifacts, experts, projections
from registry.blobs import LocalBlobs
from registry.errors import Conflict, InvalidInput, NotFound
from tests.assembler import rows

EXPERTS = ["expert-1", "expert-2"]


def ask(session: Session, **changes: Any) -> MixVersion:
    return mixes.request(
        session, **{"name": "mine", "family": "tiny", "experts": EXPERTS, **changes}
    )


def pointers(session: Session, **changes: Any) -> list[str]:
    """Where the problems of a refused request are."""
    return refused(lambda: ask(session, **changes))


def refused(work: Callable[[], MixVersion]) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        work()
    return [problem.pointer for problem in caught.value.problems]


def publish(session: Session, version: MixVersion) -> MixVersion:
    """As its job would have left it."""
    artifact = artifacts.register(
        session,
        manifest_digest="0" * 64,
        recipe=version.recipe,
        recipe_digest=version.recipe_digest,
        gate_report_digest="0" * 64,
    )
    version.artifact_id = artifact.id
    progress.finish(session, version.id, state=MixState.SUCCEEDED)
    return version


@pytest.fixture
def base(session: Session, blobs: LocalBlobs) -> MixVersion:
    """`mine@1` of experts 1 and 2, published; there is an expert 3."""
    rows.add_all(session, blobs, num_experts=3)
    return publish(session, ask(session))


def test_everything_is_pinned(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    version = ask(session)
    assert version.state is MixState.QUEUED
    assert version.recipe["experts"] == ["expert-1@1", "expert-2@1"]
    assert version.recipe["projection"] == "tiny@1"


def test_the_same_recipe_is_the_same_version(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert ask(session).id == ask(session, experts=["expert-1@1", "expert-2"]).id


def test_another_recipe_is_the_next_version(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    ask(session)
    assert ask(session, finetune={"tokens": 0}).number == 2


@pytest.mark.parametrize("state", [MixState.FAILED, MixState.CANCELLED])
def test_what_did_not_end_well_is_made_again(
    session: Session, blobs: LocalBlobs, state: MixState
) -> None:
    rows.add_all(session, blobs)
    progress.finish(session, ask(session).id, state=state)
    assert ask(session).number == 2


def test_what_succeeded_is_not_made_again(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    progress.finish(session, ask(session).id, state=MixState.SUCCEEDED)
    assert ask(session).number == 1


def test_unknown_experts_are_pointed_at(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, experts=["expert-1", "who", "expert-2@7"]) == [
        "/experts/1",
        "/experts/2",
    ]


def test_one_expert_is_no_mix(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, experts=["expert-1"]) == ["/experts"]


def test_an_expert_twice_is_pointed_at(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, experts=["expert-1", "expert-1@1"]) == ["/experts/1"]


def test_an_expert_of_another_family_is_pointed_at(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    rows.add_expert(session, blobs, rows.add_family(session, blobs, name="other"), number=3)
    assert pointers(session, experts=["expert-1", "expert-3"]) == ["/experts/1"]


def test_an_expert_that_is_not_embedded_is_pointed_at(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    rows.add_expert(session, blobs, family, number=3, embedded=False)
    assert pointers(session, experts=["expert-1", "expert-3"]) == ["/experts/1"]


def test_a_family_must_be_known(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, family="none") == ["/family"]


def test_a_family_needs_a_projection(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    for number in (1, 2):
        rows.add_expert(session, blobs, family, number=number)
    assert pointers(session) == ["/family"]


def test_more_experts_for_each_token_than_there_are(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, assembly={"experts_per_token": 3}) == ["/experts_per_token"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"preset": "nexuss"}, "/preset"),
        ({"assembly": {"combine": "product"}}, "/combine"),
        ({"assembly": {"colour": "red"}}, "/colour"),
        ({"assembly": {"shared_expert": False}}, "/combine"),
        ({"assembly": {"norm_topk_prob": True}}, "/norm_topk_prob"),
        (
            {"preset": "bam", "assembly": {"attention_experts_per_token": 4}},
            "/attention_experts_per_token",
        ),
        ({"finetune": {"tokens": -1}}, "/finetune/tokens"),
    ],
)
def test_wrong_fields_are_pointed_at(
    session: Session, blobs: LocalBlobs, changes: dict[str, Any], pointer: str
) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, **changes) == [pointer]


def test_presets_without_a_projection_need_none(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    for number in (1, 2):
        rows.add_expert(session, blobs, family, number=number)
    recipe = ask(session, preset="btx", assembly={"experts_per_token": 3}).recipe
    assert (recipe["projection"], recipe["experts_per_token"]) == (None, 3)
    assert recipe["finetune"]["train"] == "all"


def test_an_expert_joins(session: Session, base: MixVersion) -> None:
    version = mixes.extend(session, "mine", expert="expert-3", finetune={"tokens": 0})
    assert mixes.ref_of(version) == "mine@2"
    assert version.recipe["base"] == "mine@1"
    assert version.recipe["experts"] == ["expert-1@1", "expert-2@1", "expert-3@1"]
    assert version.recipe["projection"] == base.recipe["projection"]
    assert version.recipe["finetune"]["tokens"] == 0


def test_an_expert_is_replaced(session: Session, base: MixVersion) -> None:
    version = mixes.replace(session, "mine@1", expert="expert-1", by="expert-3", name="other")
    assert mixes.ref_of(version) == "other@1"
    assert version.recipe["experts"] == ["expert-3@1", "expert-2@1"]


def test_experts_go_and_what_came_before_is_known(session: Session, base: MixVersion) -> None:
    extended = publish(session, mixes.extend(session, "mine", expert="expert-3"))
    reduced = mixes.remove(session, "mine", expert="expert-1@1")
    assert reduced.recipe["experts"] == ["expert-2@1", "expert-3@1"]
    assert (reduced.recipe["base"], extended.recipe["base"]) == ("mine@2", "mine@1")


def test_gates_of_the_base_hold_on(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    publish(session, ask(session, gates=Policy(prompts_per_domain=2)))
    changed = mixes.extend(session, "mine", expert="expert-3", gates={"min_fdt_75": 8})
    assert changed.recipe["gates"]["prompts_per_domain"] == 2
    assert changed.recipe["gates"]["min_fdt_75"] == 8


def test_retired_experts_stay_where_they_are(session: Session, base: MixVersion) -> None:
    experts.retire(session, expert="expert-1", number=1)
    version = mixes.extend(session, "mine", expert="expert-3")
    assert "expert-1@1" in version.recipe["experts"]
    # But none joins.
    assert pointers(session, name="other") == ["/experts/0"]


@pytest.mark.parametrize("expert", ["expert-1", "expert-2@1", "who", "expert-3@9", "../etc"])
def test_who_cannot_join_is_pointed_at(session: Session, base: MixVersion, expert: str) -> None:
    assert refused(lambda: mixes.extend(session, "mine", expert=expert)) == ["/expert"]
    if not expert.startswith("expert-1"):
        replaced = refused(lambda: mixes.replace(session, "mine", expert="expert-1", by=expert))
        assert replaced == ["/by"]


def test_an_expert_of_another_family_cannot_join(
    session: Session, blobs: LocalBlobs, base: MixVersion
) -> None:
    rows.add_expert(session, blobs, rows.add_family(session, blobs, name="other"), number=4)
    assert refused(lambda: mixes.extend(session, "mine", expert="expert-4")) == ["/expert"]


@pytest.mark.parametrize("expert", ["expert-1", "expert-3", "../etc"])
def test_who_cannot_go_is_pointed_at(session: Session, base: MixVersion, expert: str) -> None:
    assert refused(lambda: mixes.remove(session, "mine", expert=expert)) == ["/expert"]


def test_as_many_experts_stay_as_a_token_needs(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    all_three = [*EXPERTS, "expert-3"]
    publish(session, ask(session, experts=all_three, assembly={"experts_per_token": 3}))
    assert refused(lambda: mixes.remove(session, "mine", expert="expert-3")) == ["/expert"]


def test_values_of_a_changed_mix_are_pointed_at(session: Session, base: MixVersion) -> None:
    for changes, pointer in (
        ({"finetune": {"tokens": -1}}, "/finetune/tokens"),
        ({"gates": {"min_fdt_75": 99}}, "/gates"),
        ({"name": "No Name"}, "/name"),
    ):
        asked = partial(mixes.extend, session, "mine", expert="expert-3")
        assert refused(partial(asked, **changes)) == [pointer]


def test_only_what_is_published_is_changed(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    ask(session)
    with pytest.raises(Conflict, match="queued"):
        mixes.extend(session, "mine", expert="expert-3")


def test_a_mean_is_not_changed(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    publish(session, ask(session, preset="merge"))
    with pytest.raises(Conflict, match="mean"):
        mixes.remove(session, "mine", expert="expert-1")


def test_a_mix_of_other_domain_embeddings_is_made_anew(session: Session, base: MixVersion) -> None:
    """Rows of one that joins could not be made as those were that the base has."""
    projections.pin(session, "tiny@1").embedder_digest = "e" * 64
    with pytest.raises(Conflict, match=r"mine@1 cannot be changed: .* make the mix anew"):
        mixes.extend(session, "mine", expert="expert-3")


def test_a_projection_of_other_domain_embeddings_is_learned_anew(
    session: Session, base: MixVersion
) -> None:
    projections.pin(session, "tiny@1").embedder_digest = "e" * 64
    with pytest.raises(InvalidInput) as caught:
        ask(session, name="other")
    (problem,) = caught.value.problems
    assert problem.pointer == "/family"
    assert "tiny@1 projects other domain embeddings (eeeeeeeeeeee)" in problem.detail
    assert problem.detail.endswith("ask for a new projection")


def test_a_name_must_be_fit_for_addresses(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, name="No Name") == ["/name"]


def test_cancelling_twice_changes_nothing(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    job_id = ask(session).job_id
    assert mixes.cancel(session, "mine").state is MixState.CANCELLED
    mixes.cancel(session, "mine@1")
    assert len(jobs.events_after(session, job_id)) == 1


def test_what_is_over_cannot_be_cancelled(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    progress.finish(session, ask(session).id, state=MixState.SUCCEEDED)
    with pytest.raises(Conflict):
        mixes.cancel(session, "mine")


def test_an_unknown_mix_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound):
        mixes.get(session, "none")


def test_pages_go_backwards(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    first, second = ask(session), ask(session, name="another")
    assert [version.id for version in mixes.find_page(session)] == [second.id, first.id]
    assert [version.id for version in mixes.find_page(session, before=second.id)] == [first.id]
