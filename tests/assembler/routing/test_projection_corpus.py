"""Experts' documents are added to those that a projection has learned from."""

import pytest
from sqlalchemy.orm import Session

from assembler.routing import projection_corpus
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents, experts, kept_documents, projections
from registry.catalog.documents import Document
from registry.errors import Conflict, InvalidInput, Problem
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


def test_private_documents_teach_no_projection(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    version = experts.pin(session, "expert-1")
    kept_documents.wish(session, version, private=True, forget=False)
    with pytest.raises(InvalidInput) as caught:
        documents_with(session, blobs, "expert-1", "expert-2")
    [problem] = caught.value.problems
    assert problem == Problem("/experts/0", "expert-1@1 keeps its documents private")
    shared = projection_corpus.of_all_experts(session, family="tiny")
    assert shared == ["expert-2@1", "expert-3@1"]


def test_the_documents_of_experts_suffice_for_a_first_projection(
    session: Session, blobs: LocalBlobs
) -> None:
    family = rows.add_family(session, blobs)
    for number in (1, 2):
        rows.add_expert(session, blobs, family, number=number)
    refs = projection_corpus.of_all_experts(session, family="tiny")
    digest = projection_corpus.with_expert_documents(
        session, blobs, family="tiny", documents_digest=None, refs=refs
    )
    combined = documents.parse(blobs.read(digest))
    assert {document.domain for document in combined} == {"expert-1", "expert-2"}
    with pytest.raises(InvalidInput, match="tells domains apart"):
        projection_corpus.with_expert_documents(
            session, blobs, family="tiny", documents_digest=None, refs=refs[:1]
        )


def test_forgotten_documents_are_taken_out_of_projections(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    [first] = projections.find_all(session, family="tiny")
    first.documents_digest = put_bytes(blobs, documents.serialize(PUBLIC))
    learned = documents.serialize(documents_with(session, blobs, "expert-1"))
    second = projections.request(
        session,
        family="tiny",
        documents_digest=put_bytes(blobs, learned),
        embedder_digest=first.embedder_digest,
        training={},
    )
    version = experts.pin(session, "expert-1")
    with pytest.raises(Conflict, match="projection tiny@2 is learning from these documents"):
        projection_corpus.take_out(session, blobs, version)
    projections.mark_ready(session, second, manifest_digest="m" * 64, metrics={})
    projection_corpus.take_out(session, blobs, version)
    assert documents.parse(blobs.read(second.documents_digest)) == PUBLIC
