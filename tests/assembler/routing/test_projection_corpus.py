"""Documents of experts join those that a projection has learned from."""

import pytest
from sqlalchemy.orm import Session

from assembler.routing import projection_corpus
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.errors import Conflict, InvalidInput
from tests.assembler import rows

PUBLIC = [Document(f"p{i}", "Public text.", "train", f"public-{i}") for i in range(2)]


def joined(session: Session, blobs: LocalBlobs, *refs: str) -> list[Document]:
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
    together = joined(session, blobs, "expert-1")
    assert {d.domain for d in together} == {"public-0", "public-1", "expert-1"}
    assert {d.split for d in together} == {"train"}
    assert len({d.id for d in together}) == len(together)


def test_without_experts_nothing_is_added(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert joined(session, blobs) == PUBLIC


def test_a_newer_version_takes_the_place_of_the_older(session: Session, blobs: LocalBlobs) -> None:
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
        joined(session, blobs, "expert-1", "expert-9")
    assert [problem.pointer for problem in caught.value.problems] == ["/experts/1"]


def test_without_any_documents(session: Session, blobs: LocalBlobs) -> None:
    rows.add_family(session, blobs)
    with pytest.raises(Conflict, match="no projection"):
        projection_corpus.with_expert_documents(
            session, blobs, family="tiny", documents_digest=None, refs=[]
        )
