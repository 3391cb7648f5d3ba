"""A finished mix gains, loses or replaces experts; wrong changes are refused with all problems."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.planning import plan
from assembler.tables import MixVersion
from registry.blobs.blobs import LocalBlobs
from registry.catalog import experts, projections
from registry.database.tables import VersionState
from registry.errors import Conflict, NexusmixError, NotFound
from tests.assembler import rows
from tests.assembler.published import publish

EXPERTS = ["expert-1", "expert-2"]


def ask(session: Session, blobs: LocalBlobs, **changes: Any) -> MixVersion:
    request = {"name": "mine", "family": "tiny", "experts": EXPERTS, **changes}
    return mixes.request(session, blobs, NewMix(**request))


def revise(session: Session, blobs: LocalBlobs, **revision: Any) -> MixVersion:
    return mixes.request(session, blobs, MixChange(**{"base": "mine", **revision}))


def refused(session: Session, blobs: LocalBlobs, **revision: Any) -> NexusmixError:
    """Return the refusal of a change, whose problems equal those of its plan."""
    wish = MixChange(**{"base": "mine", **revision})
    planned = plan.plan(session, blobs, wish)
    with pytest.raises(NexusmixError) as caught:
        mixes.request(session, blobs, wish)
    assert caught.value.problems == planned.problems
    return caught.value


def pointers(session: Session, blobs: LocalBlobs, **revision: Any) -> list[str]:
    return [problem.pointer for problem in refused(session, blobs, **revision).problems]


@pytest.fixture
def base(session: Session, blobs: LocalBlobs) -> MixVersion:
    """Publish `mine@1` of experts 1 and 2, and add expert 3."""
    rows.add_all(session, blobs, num_experts=3)
    return publish(session, blobs, ask(session, blobs))


def test_an_expert_is_added(session: Session, blobs: LocalBlobs, base: MixVersion) -> None:
    version = revise(session, blobs, joining="expert-3", finetune={"tokens": 0})
    assert mixes.ref_of(version) == "mine@2"
    assert version.recipe["base"] == "mine@1"
    assert version.recipe["experts"] == ["expert-1@1", "expert-2@1", "expert-3@1"]
    assert version.recipe["projection"] == base.recipe["projection"]
    assert version.recipe["finetune"]["tokens"] == 0


def test_an_expert_is_replaced(session: Session, blobs: LocalBlobs, base: MixVersion) -> None:
    version = revise(
        session, blobs, base="mine@1", leaving="expert-1", joining="expert-3", name="other"
    )
    assert mixes.ref_of(version) == "other@1"
    assert version.recipe["experts"] == ["expert-3@1", "expert-2@1"]


def test_an_expert_is_renewed(session: Session, blobs: LocalBlobs, base: MixVersion) -> None:
    renewed = experts.pin(session, "expert-3")
    renewed.expert, renewed.number = experts.find(session, "expert-1"), 2
    session.flush()
    version = revise(session, blobs, leaving="expert-1", joining="expert-1")
    assert version.recipe["experts"] == ["expert-1@2", "expert-2@1"]
    # A mix cannot have two versions of one expert.
    assert pointers(session, blobs, base="mine@1", joining="expert-1@2") == ["/expert"]


def test_experts_are_removed_and_the_base_is_recorded(
    session: Session, blobs: LocalBlobs, base: MixVersion
) -> None:
    extended = publish(session, blobs, revise(session, blobs, joining="expert-3"))
    reduced = revise(session, blobs, leaving="expert-1@1")
    assert reduced.recipe["experts"] == ["expert-2@1", "expert-3@1"]
    assert (reduced.recipe["base"], extended.recipe["base"]) == ("mine@2", "mine@1")


def test_the_policy_of_the_base_is_kept(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    publish(
        session,
        blobs,
        ask(session, blobs, gates={"prompts_per_domain": 2, "served": {"min_fdt_50": 4}}),
    )
    changed = revise(session, blobs, joining="expert-3", gates={"served": {"min_fdt_75": 8}})
    assert changed.recipe["gates"]["prompts_per_domain"] == 2
    served = changed.recipe["gates"]["served"]
    assert (served["min_fdt_50"], served["min_fdt_75"]) == (4, 8)


def test_a_mix_keeps_retired_experts(session: Session, blobs: LocalBlobs, base: MixVersion) -> None:
    experts.pin(session, "expert-1").state = VersionState.RETIRED
    session.flush()
    assert "expert-1@1" in revise(session, blobs, joining="expert-3").recipe["experts"]


@pytest.mark.parametrize("expert", ["expert-1", "expert-2@1", "who", "expert-3@9", "../etc"])
def test_an_expert_that_cannot_be_added_has_a_pointer(
    session: Session, blobs: LocalBlobs, base: MixVersion, expert: str
) -> None:
    assert pointers(session, blobs, joining=expert) == ["/expert"]
    assert pointers(session, blobs, leaving="expert-1", joining=expert) == ["/by"]


def test_an_expert_of_another_family_cannot_be_added(
    session: Session, blobs: LocalBlobs, base: MixVersion
) -> None:
    rows.add_expert(session, blobs, rows.add_family(session, blobs, name="other"), number=4)
    assert set(pointers(session, blobs, joining="expert-4")) == {"/expert"}


@pytest.mark.parametrize("expert", ["expert-1", "expert-3", "../etc"])
def test_an_expert_that_cannot_be_removed_has_a_pointer(
    session: Session, blobs: LocalBlobs, base: MixVersion, expert: str
) -> None:
    assert pointers(session, blobs, leaving=expert) == ["/expert"]


def test_enough_experts_for_one_token_must_stay(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    all_three = [*EXPERTS, "expert-3"]
    version = ask(session, blobs, experts=all_three, assembly={"experts_per_token": 3})
    publish(session, blobs, version)
    (problem,) = refused(session, blobs, leaving="expert-3").problems
    assert problem.pointer == "/expert"
    assert problem.detail == "experts_per_token is more than the 2 experts of the mix"


def test_all_problems_are_reported_together(
    session: Session, blobs: LocalBlobs, base: MixVersion
) -> None:
    changes = {
        "leaving": "expert-3",
        "joining": "who",
        "name": "No Name",
        "finetune": {"tokens": -1},
        "gates": {"served": {"min_fdt_75": 99}},
        "others": ("combine",),
    }
    assert pointers(session, blobs, **changes) == [
        "/combine",
        "/finetune/tokens",
        "/gates",
        "/expert",
        "/name",
        "/by",
    ]


def test_a_mix_of_other_domain_embeddings_cannot_be_changed(
    session: Session, blobs: LocalBlobs, base: MixVersion
) -> None:
    """Rows of a new expert would be computed in another way than the rows of the base."""
    projections.pin(session, "tiny@1").embedder_digest = "e" * 64
    refusal = refused(session, blobs, joining="expert-3")
    assert isinstance(refusal, Conflict)
    assert refusal.detail.startswith("mine@1 cannot be changed: ")
    assert refusal.detail.endswith("make the mix anew, of all its experts")


def test_only_a_published_mix_can_be_changed(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    ask(session, blobs)
    refusal = refused(session, blobs, joining="who", finetune={"tokens": -1})
    assert isinstance(refusal, Conflict)
    assert "queued" in refusal.detail
    # Other problems are reported too.
    assert [p.pointer for p in refusal.problems] == ["/base", "/finetune/tokens", "/expert"]


def test_an_unknown_base_is_not_found(session: Session, blobs: LocalBlobs) -> None:
    assert isinstance(refused(session, blobs, joining="who"), NotFound)


def test_a_mean_cannot_be_changed(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    publish(session, blobs, ask(session, blobs, preset="merge"))
    refusal = refused(session, blobs, leaving="expert-1")
    assert isinstance(refusal, Conflict)
    assert "mean" in refusal.detail
