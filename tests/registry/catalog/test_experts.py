"""Experts are listed by name, and references are pinned to ready versions."""

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import experts
from registry.database.tables import Expert, VersionState
from registry.errors import Conflict, InvalidInput, NotFound
from tests import factories


@pytest.fixture
def law(session: Session, blobs: LocalBlobs) -> Expert:
    """Make four versions: 1 and 2 are ready, 3 is uploading, 4 is retired."""
    law = factories.make_expert(session, factories.make_family(session, blobs), name="law")
    states = (VersionState.READY, VersionState.READY, VersionState.UPLOADING, VersionState.RETIRED)
    for number, state in enumerate(states, start=1):
        factories.make_version(session, law, blobs, number=number, state=state)
    return law


def test_a_name_means_the_newest_ready_version(session: Session, law: Expert) -> None:
    assert experts.ref_of(experts.pin(session, "law")) == "law@2"


def test_a_number_means_that_version(session: Session, law: Expert) -> None:
    session.expunge_all()
    version = experts.pin(session, "law@1")
    assert (version.number, version.expert.family.name) == (1, "tiny")


@pytest.mark.parametrize(
    ("ref", "error", "reason"),
    [
        ("law@3", Conflict, "uploading, not ready"),
        ("law@4", Conflict, "retired, not ready"),
        ("law@5", NotFound, "no version 5 of expert 'law'"),
        ("tax", NotFound, "no expert 'tax'"),
        ("law@", InvalidInput, "neither a name nor name@number"),
        ("law@0", InvalidInput, "neither a name nor name@number"),
        ("law@1@1", InvalidInput, "neither a name nor name@number"),
    ],
)
def test_a_reference_that_cannot_be_pinned_is_refused(
    session: Session, law: Expert, ref: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        experts.pin(session, ref)


def test_every_reference_that_cannot_be_pinned_is_named(session: Session, law: Expert) -> None:
    with pytest.raises(InvalidInput) as error:
        experts.pin_all(session, ["tax", "law", "law@3"])
    assert [problem.pointer for problem in error.value.problems] == ["/experts/0", "/experts/2"]


def test_pages(session: Session, law: Expert, blobs: LocalBlobs) -> None:
    other = factories.make_family(session, blobs, name="other")
    factories.make_expert(session, other, name="art")
    factories.make_expert(session, other, name="zoo")
    names = [expert.name for expert in experts.find_page(session, limit=2)]
    assert names == ["art", "law"]
    assert [expert.name for expert in experts.find_page(session, after="law")] == ["zoo"]
    assert [e.name for e in experts.find_page(session, family="tiny")] == ["law"]


def test_versions_are_listed_newest_first(session: Session, law: Expert) -> None:
    assert [version.number for version in experts.find_versions(session, "law")] == [4, 3, 2, 1]


def test_the_newest_versions_are_found_in_one_call(
    session: Session, law: Expert, blobs: LocalBlobs
) -> None:
    other = factories.make_family(session, blobs, name="other")
    art = factories.make_expert(session, other, name="art")
    factories.make_version(session, art, blobs)
    factories.make_expert(session, other, name="empty")
    names = ["law", "art", "empty"]
    newest = [experts.ref_of(version) for version in experts.find_newest(session, names)]
    assert newest == ["art@1", "law@4"]
    ready = experts.find_newest(session, names, state=VersionState.READY)
    assert [experts.ref_of(version) for version in ready] == ["art@1", "law@2"]


def test_a_retired_version_is_not_the_newest(session: Session, law: Expert) -> None:
    experts.retire(session, expert="law", number=2)
    assert experts.pin(session, "law").number == 1


def test_progress_is_told_until_the_embedding_ends(session: Session, law: Expert) -> None:
    version = experts.find_version(session, expert="law", number=1)
    experts.report(session, version.id, progress="document 1 of 64")
    assert version.progress is None
    version.state = VersionState.EMBEDDING
    experts.report(session, version.id, progress="document 1 of 64")
    assert version.progress == "document 1 of 64"
    experts.mark_embedded(session, version.id)
    assert (version.state, version.progress) == (VersionState.READY, None)
