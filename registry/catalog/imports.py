"""Announce a version of an expert that is no checkpoint yet: an adapter, or a GGUF file.

Like an upload, see `registry.catalog.uploads`: announce, send, complete. A worker then makes the
checkpoint, before it checks it.
"""

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore
from registry.catalog import blob_permissions, families, uploads
from registry.catalog.uploads import ExpertUpload
from registry.checkpoints import manifests
from registry.database import db
from registry.database.tables import ExpertVersion, VersionState
from registry.imports.announcements import Announcement


def begin_import(
    session: Session,
    blobs: BlobStore,
    *,
    expert: str,
    family: str,
    license: str,
    description: str,
    announced: Announcement,
    documents: str,
    sender: int,
) -> ExpertUpload:
    """Announce a version that is imported; `documents` is the digest of its sample documents.

    Announcing the same again returns the same version. Raises NotFound for the family, InvalidInput
    for name, license and documents, InvalidCheckpoint for a source that contradicts itself,
    Incompatible for one that is none of the family's seed, and Conflict as
    `uploads.find_or_add_version`.
    """
    uploads.check_announced(expert, license=license, documents=documents)
    parent = families.find_ready(session, family)
    db.release(session)
    summary = announced.check(manifests.load(blobs, parent.seed_digest))
    source = announced.source()
    wanted = source.sent_by_owner() | {documents}
    permitted = blob_permissions.accept(session, blobs, wanted, sender=sender)
    version = uploads.find_or_add_version(
        session,
        ExpertVersion(
            license=license,
            description=description,
            source=source.to_json(),
            imported_from=summary,
            documents_digest=documents,
        ),
        expert=expert,
        family=parent,
    )
    if version.state in (VersionState.EMBEDDING, VersionState.READY):
        permitted = wanted
    return ExpertUpload(version, uploads.not_sent(blobs, wanted, permitted=permitted))
