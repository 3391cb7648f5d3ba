"""Experts' documents are added to those that a projection has learned from."""

import pytest
from sqlalchemy.orm import Session

from assembler.routing import projection_corpus
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.errors import Conflict, InvalidInput
from tests.assembler import rows

PUBLIC = [Document(f"p{i}", "Public text.", "train", f"public-{i}") for i in range(2)]


def documents_with(session: Session, blobs: LocalBlobs, *refs: str) -> list[Document]:
    digest = projection_corpus.with_expert_documents(
        session,
        blobs,
        family="tiny",
        documents_digest=put_bytes(blobs, documents.serialize(PUBLIC)),
        refs=refs,
    )
    return documents.parse(blobs.read(digest))


def test_an_expert_is_one_more_domain(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    combined = documents_with(session, blobs, "expert-1")
    assert {d.domain for d in combined} == {"public-0", "public-1", "expert-1"}
    assert {d.split for d in combined} == {"train"}
    assert len({d.id for d in combined}) == len(combined)


def test_without_experts_nothing_is_added(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert documents_with(session, blobs) == PUBLIC


def test_documents_of_a_newer_version_replace_the_older_ones(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    once = projection_corpus.with_expert_documents(
        session,
        blobs,
        family="tiny",
        documents_digest=put_bytes(blobs, documents.serialize(PUBLIC)),
        refs=["expert-1"],
    )
    again = projection_corpus.with_expert_documents(
        session, blobs, family="tiny", documents_digest=once, refs=["expert-1"]
    )
    assert again == once


def test_an_expert_of_another_family_is_refused(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    rows.add_expert(session, blobs, rows.add_family(session, blobs, name="other"), number=9)
    with pytest.raises(InvalidInput) as caught:
        documents_with(session, blobs, "expert-1", "expert-9")
    assert [problem.pointer for problem in caught.value.problems] == ["/experts/1"]


def test_without_documents_or_projection_it_conflicts(session: Session, blobs: LocalBlobs) -> None:
    rows.add_family(session, blobs)
    with pytest.raises(Conflict, match="no projection"):
        projection_corpus.with_expert_documents(
            session, blobs, family="tiny", documents_digest=None, refs=[]
        )
