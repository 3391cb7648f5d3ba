"""Collect the training documents of a family's next projection: public text and experts' documents.

Existing mixes keep the projection that they were made with; a new version changes none of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import documents, experts, projections
from registry.catalog.documents import Document
from registry.database import db
from registry.database.tables import ExpertVersion, Projection, VersionState
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
    earlier versions. The experts' documents suffice for a family's first projection. Raises
    InvalidInput with a pointer to every expert that cannot take part, or for fewer than two
    domains, and Conflict when nothing is given and the family has no projection yet.
    """
    versions = experts.pin_all(session, refs)
    problems = tuple(
        Problem(pointer("experts", i), detail)
        for i, version in enumerate(versions)
        if (detail := _hindrance(version, family)) is not None
    )
    if problems:
        raise InvalidInput("these experts cannot teach this projection", problems=problems)
    if documents_digest is None:
        documents_digest = _earlier_documents(session, family, is_needed=not versions)
    if not versions:
        assert documents_digest is not None
        return documents_digest
    db.release(session)  # documents are read next
    existing = [] if documents_digest is None else documents.parse(blobs.read(documents_digest))
    expert_names = {version.expert.name for version in versions}
    combined = [document for document in existing if document.domain not in expert_names]
    for version in versions:
        combined += _of_expert(blobs, version.documents_digest, domain=version.expert.name)
    documents.group_by_domain(combined)
    return put_bytes(blobs, documents.serialize(combined))


def of_all_experts(session: Session, *, family: str) -> list[str]:
    """Return the newest ready version of each expert of a family whose documents are shared.

    Raises Conflict if the family has none.
    """
    names = [expert.name for expert in experts.find_page(session, family=family, limit=None)]
    newest = experts.find_newest(session, names, state=VersionState.READY)
    shared = [experts.ref_of(version) for version in newest if not version.private_documents]
    if not shared:
        raise Conflict(f"no expert of family {family!r} is ready and shares its documents")
    return shared


def take_out(session: Session, blobs: BlobStore, version: ExpertVersion) -> None:
    """Take the documents of a version out of all projections of its family.

    What a projection has learned stays. Raises Conflict while one is learning from them.
    """
    if version.kept_documents is None:
        return
    rows = projections.find_all(session, family=version.expert.family.name)
    db.release(session)  # documents are read next
    own = set(_of_expert(blobs, version.kept_documents, domain=version.expert.name))
    replaced: list[tuple[Projection, str]] = []
    for row in rows:
        learned = documents.parse(blobs.read(row.documents_digest))
        kept = [document for document in learned if document not in own]
        if len(kept) < len(learned):
            replaced.append((row, put_bytes(blobs, documents.serialize(kept))))
    for row, digest in replaced:
        projections.replace_documents(session, row, documents_digest=digest)


def _hindrance(version: ExpertVersion, family: str) -> str | None:
    """Say why the documents of a version cannot teach the projection of a family."""
    if version.expert.family.name != family:
        return f"{version.expert.name!r} is of family {version.expert.family.name!r}"
    if version.private_documents:
        return f"{experts.ref_of(version)} keeps its documents private"
    return None


def _earlier_documents(session: Session, family: str, *, is_needed: bool) -> str | None:
    try:
        return projections.pin(session, family).documents_digest
    except Conflict as error:
        if not is_needed:
            return None
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
