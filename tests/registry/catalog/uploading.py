"""Uploads a tiny seed or expert into the registry, step by step, as the routes do for a client."""

import hashlib
from typing import Any

from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import blob_permissions, documents, families, uploads
from registry.checkpoints.admission import CheckpointAnnouncement, Shard
from registry.checkpoints.manifests import Manifest
from registry.database.tables import ExpertVersion, Family
from tests import tiny

# The id of the API key that does it all.
SENDER = 1


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def announcement(*, expert: int = 0) -> dict[str, Any]:
    """Return the announcement of a tiny checkpoint, as a client sends it before the blobs."""
    data = tiny.safetensors_bytes(expert=expert)
    return {
        "config": tiny.config(),
        "files": {name: digest_of(data) for name, data in tiny.tokenizer_files().items()},
        "shards": [Shard("model.safetensors", len(data), tiny.safetensors_header(expert=expert))],
        "digests": {n: digest_of(data) for n, data in tiny.tensors(expert=expert).items()},
    }


def begin_family(session: Session, blobs: LocalBlobs, **changes: Any) -> uploads.FamilyUpload:
    arguments = {"name": "tiny", "license": "Apache-2.0", "description": "", "sender": SENDER}
    arguments |= announcement()
    return uploads.begin_family(session, blobs, **with_checkpoint({**arguments, **changes}))


def with_checkpoint(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an upload, those of the checkpoint in one announcement."""
    parts = {name: arguments.pop(name) for name in announcement()}
    return arguments | {"checkpoint": CheckpointAnnouncement(**parts)}


def begin_expert(
    session: Session, blobs: LocalBlobs, *, number: int = 1, **changes: Any
) -> uploads.ExpertUpload:
    arguments = {
        "expert": "law",
        "family": "tiny",
        "license": "CC0-1.0",
        "description": "",
        "sender": SENDER,
        "documents": digest_of(documents.serialize(tiny.sample_documents(expert=number))),
        **announcement(expert=number),
    }
    return uploads.begin_expert_version(session, blobs, **with_checkpoint({**arguments, **changes}))


def complete_family(session: Session, blobs: LocalBlobs, *, name: str = "tiny") -> Family:
    return uploads.complete_family(session, blobs, name=name, sender=SENDER)


def complete_expert(session: Session, blobs: LocalBlobs, *, number: int = 1) -> ExpertVersion:
    return uploads.complete_expert_version(
        session, blobs, expert="law", number=number, sender=SENDER
    )


def make_ready(session: Session, blobs: LocalBlobs, *, name: str = "tiny") -> None:
    """Complete a family, as if a worker had found its seed sound."""
    family = complete_family(session, blobs, name=name)
    families.mark_ready(session, family.id, seed_digest=family.seed_digest)


def checked(session: Session, blobs: LocalBlobs) -> None:
    """Complete version 1 of the expert `law`, and check it as a worker does."""
    uploads.check_expert_version(blobs, complete_expert(session, blobs))


def send(session: Session, blobs: LocalBlobs, data: bytes) -> str:
    digest = put_bytes(blobs, data)
    blob_permissions.record_sent(session, [digest], sender=SENDER)
    return digest


def send_checkpoint(session: Session, blobs: LocalBlobs, *, expert: int = 0) -> Manifest:
    manifest = tiny.store_manifest(blobs, expert=expert)
    blob_permissions.record_sent(session, manifest.digests(), sender=SENDER)
    return manifest


def send_documents(session: Session, blobs: LocalBlobs, *, expert: int) -> str:
    sample = documents.serialize(tiny.sample_documents(expert=expert))
    return send(session, blobs, sample)
