"""Versions of mixes are requested, found again, listed and cancelled."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import job_events, mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import RETRIED_STATES, MixState, MixVersion
from registry.blobs.blobs import LocalBlobs
from registry.errors import Conflict, NotFound
from tests.assembler import rows
from tests.assembler.published import publish

EXPERTS = ["expert-1", "expert-2"]


def ask(session: Session, blobs: LocalBlobs, **changes: Any) -> MixVersion:
    request = {"name": "mine", "family": "tiny", "experts": EXPERTS, **changes}
    return mixes.request(session, blobs, NewMix(**request))


def test_a_request_is_stored_with_pinned_versions(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    version = ask(session, blobs)
    assert version.state is MixState.QUEUED
    assert version.recipe["experts"] == ["expert-1@1", "expert-2@1"]
    assert version.recipe["projection"] == "tiny@1"


def test_an_equal_recipe_gives_the_same_version(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert ask(session, blobs).id == ask(session, blobs, experts=["expert-1@1", "expert-2"]).id


def test_another_recipe_gives_the_next_version(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    ask(session, blobs)
    assert ask(session, blobs, finetune={"tokens": 0}).number == 2


def test_the_newest_version_counts_in_any_state(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    mix_state.finish(session, ask(session, blobs).id, state=MixState.FAILED)
    assert mixes.newest(session, "mine").number == 1
    published = publish(session, blobs, ask(session, blobs))
    failed = ask(session, blobs, finetune={"tokens": 0})
    mix_state.finish(session, failed.id, state=MixState.FAILED)
    assert mixes.newest(session, "mine").number == failed.number == 3
    assert mixes.get(session, "mine").number == published.number == 2
    with pytest.raises(NotFound, match="no mix 'nobody'"):
        mixes.newest(session, "nobody")


def test_a_mix_is_published_when_a_version_is(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    version = ask(session, blobs)
    assert not mixes.is_published(session, "mine")
    publish(session, blobs, version)
    assert mixes.is_published(session, "mine")


@pytest.mark.parametrize("state", RETRIED_STATES)
def test_a_failed_version_is_made_again(
    session: Session, blobs: LocalBlobs, state: MixState
) -> None:
    rows.add_all(session, blobs)
    mix_state.finish(session, ask(session, blobs).id, state=state)
    assert ask(session, blobs).number == 2


def test_a_finished_version_is_not_made_again(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    mix_state.finish(session, ask(session, blobs).id, state=MixState.SUCCEEDED)
    assert ask(session, blobs).number == 1


def test_cancelling_twice_changes_nothing(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    job_id = ask(session, blobs).job_id
    assert mixes.cancel(session, "mine@1").state is MixState.CANCELLED
    mixes.cancel(session, "mine@1")
    assert len(job_events.events_after(session, job_id)) == 1


def test_a_finished_version_cannot_be_cancelled(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    mix_state.finish(session, ask(session, blobs).id, state=MixState.SUCCEEDED)
    with pytest.raises(Conflict):
        mixes.cancel(session, "mine@1")


def test_a_retried_version_is_found_by_an_equal_request(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    first = ask(session, blobs)
    mix_state.finish(session, first.id, state=MixState.FAILED)
    assert mixes.retry(session, "mine@1").state is MixState.QUEUED
    assert ask(session, blobs).id == first.id


def test_an_unknown_mix_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound):
        mixes.get(session, "none")


def test_pages_are_newest_first(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    first, second = ask(session, blobs), ask(session, blobs, name="another")
    assert [version.id for version in mixes.find_page(session)] == [second.id, first.id]
    assert [version.id for version in mixes.find_page(session, before=second.id)] == [first.id]
