"""What a request for a mix is answered with, before any work is done."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler import jobs, mixes, progress
from assembler.recipe import Finetune
from assembler.tables import MixState, MixVersion
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
    with pytest.raises(InvalidInput) as caught:
        ask(session, **changes)
    return [problem.pointer for problem in caught.value.problems]


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
    assert ask(session, finetune=Finetune(tokens=0)).number == 2


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
    assert pointers(session, experts_per_token=3) == ["/experts_per_token"]


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
