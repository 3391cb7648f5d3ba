"""NAME means the newest version that can be used, NAME@NUMBER any version."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState, MixVersion
from registry.blobs.blobs import LocalBlobs
from registry.catalog import experts
from registry.catalog.references import resolve
from registry.database.tables import VersionState
from registry.errors import Conflict, InvalidInput, NotFound
from tests import factories
from tests.assembler import rows
from tests.assembler.published import publish


def request(session: Session, blobs: LocalBlobs, *, seed: int) -> MixVersion:
    spec = NewMix(
        name="mine", family="tiny", experts=["expert-1", "expert-2"], finetune={"seed": seed}
    )
    return mixes.request(session, blobs, spec)


@pytest.fixture
def mine(session: Session, blobs: LocalBlobs) -> None:
    """Make three versions: 1 is published, 2 was refused, 3 is queued."""
    rows.add_all(session, blobs)
    publish(session, blobs, request(session, blobs, seed=1))
    refused = request(session, blobs, seed=2)
    mix_state.finish(session, refused.id, state=MixState.FAILED, error="its gate has refused it")
    request(session, blobs, seed=3)


def test_the_name_of_a_mix_means_its_newest_published_version(session: Session, mine: None) -> None:
    assert mixes.ref_of(mixes.get(session, "mine")) == "mine@1"


@pytest.mark.parametrize("ref", ["mine@1", "mine@2", "mine@3"])
def test_a_number_means_that_version_in_any_state(session: Session, mine: None, ref: str) -> None:
    assert mixes.ref_of(mixes.get(session, ref)) == ref


def test_the_name_of_an_expert_means_its_newest_ready_version(
    session: Session, blobs: LocalBlobs
) -> None:
    law = factories.make_expert(session, factories.make_family(session, blobs), name="law")
    factories.make_version(session, law, blobs, number=1)
    factories.make_version(session, law, blobs, number=2, state=VersionState.UPLOADING)
    assert resolve(session, "law", experts.VERSIONS).number == 1
    assert resolve(session, "law@2", experts.VERSIONS).number == 2


@pytest.mark.parametrize(
    ("versions", "ref", "error", "reason"),
    [
        (mixes.VERSIONS, "mine@4", NotFound, "no version 4 of mix 'mine'"),
        (mixes.VERSIONS, "yours", NotFound, "no mix 'yours'"),
        (mixes.VERSIONS, "mine@", InvalidInput, "neither a name nor name@number"),
        (experts.VERSIONS, "law", NotFound, "no expert 'law'"),
    ],
)
def test_a_reference_that_means_nothing_is_refused(
    session: Session, mine: None, versions: Any, ref: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        resolve(session, ref, versions)


def test_a_name_without_a_usable_version_is_refused_with_its_newest(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    request(session, blobs, seed=1)
    with pytest.raises(Conflict) as refused:
        mixes.get(session, "mine")
    assert refused.value.detail == (
        "mix 'mine' has no version that is published; its newest, mine@1, is queued;"
        " NAME@NUMBER names a version that is not published"
    )
