"""What a family's projection learns from next: public text, and what experts' owners brought since.

Mixes that exist keep the projection that they were made with; a new version moves none of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import documents, experts, projections
from registry.catalog.documents import Document
from registry.errors import InvalidInput, Problem, pointer


def with_expert_documents(
    session: Session,
    blobs: BlobStore,
    *,
    family: str,
    documents_digest: str | None,
    refs: Sequence[str],
) -> str:
    """The digest of training documents, stored: those given, else those of the family's newest
    projection, and beside them those of experts, each a domain of its own.

    An expert's documents take the place of those of an earlier version of it. Raises InvalidInput
    with a pointer to every expert that cannot take part, and Conflict when nothing is given and
    the family has no projection yet.
    """
    if documents_digest is None:
        documents_digest = projections.pin(session, family).documents_digest
    if not refs:
        return documents_digest
    versions = experts.pin_all(session, refs)
    problems = tuple(
        Problem(pointer("experts", i), f"{v.expert.name!r} is of family {v.expert.family.name!r}")
        for i, v in enumerate(versions)
        if v.expert.family.name != family
    )
    if problems:
        raise InvalidInput("these experts cannot teach this projection", problems=problems)
    known = documents.parse(blobs.read(documents_digest))
    joining = {version.expert.name for version in versions}
    together = [document for document in known if document.domain not in joining]
    for version in versions:
        together += _of_expert(blobs, version.documents_digest, domain=version.expert.name)
    return put_bytes(blobs, documents.serialize(together))


def _of_expert(blobs: BlobStore, digest: str, *, domain: str) -> list[Document]:
    return [
        replace(document, id=f"{domain}/{document.id}", domain=domain)
        for document in documents.parse(blobs.read(digest))
        if document.split == "train"
    ]
