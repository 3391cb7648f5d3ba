"""Collect the training documents of a family's next projection: public text and experts' documents.

Existing mixes keep the projection that they were made with; a new version changes none of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import documents, experts, projections
from registry.catalog.documents import Document
from registry.errors import Conflict, InvalidInput, Problem, pointer


def with_expert_documents(
    session: Session,
    blobs: BlobStore,
    *,
    family: str,
    documents_digest: str | None,
    refs: Sequence[str],
) -> str:
    """Store the training documents of a projection and return their digest.

    They are the documents of `documents_digest`, or of the family's newest projection, and those of
    the experts in `refs`, each as its own domain. An expert's documents replace those of its
    earlier versions. Raises InvalidInput with a pointer to every expert that cannot take part, and
    Conflict when no documents are given and the family has no projection yet.
    """
    versions = experts.pin_all(session, refs)
    problems = tuple(
        Problem(pointer("experts", i), f"{v.expert.name!r} is of family {v.expert.family.name!r}")
        for i, v in enumerate(versions)
        if v.expert.family.name != family
    )
    if problems:
        raise InvalidInput("these experts cannot teach this projection", problems=problems)
    if documents_digest is None:
        documents_digest = _earlier_documents(session, family)
    if not refs:
        return documents_digest
    existing = documents.parse(blobs.read(documents_digest))
    expert_names = {version.expert.name for version in versions}
    combined = [document for document in existing if document.domain not in expert_names]
    for version in versions:
        combined += _of_expert(blobs, version.documents_digest, domain=version.expert.name)
    return put_bytes(blobs, documents.serialize(combined))


def _earlier_documents(session: Session, family: str) -> str:
    try:
        return projections.pin(session, family).documents_digest
    except Conflict as error:
        raise Conflict(
            f"{error.detail}: give documents of two domains or more, which it is trained on"
        ) from error


def _of_expert(blobs: BlobStore, digest: str, *, domain: str) -> list[Document]:
    """Return an expert's training documents, with the expert's name as their domain."""
    return [
        replace(document, id=f"{domain}/{document.id}", domain=domain)
        for document in documents.parse(blobs.read(digest))
        if document.split == "train"
    ]
