"""Announce a version of an expert that is no checkpoint yet: an adapter.

Like an upload, see `registry.catalog.uploads`: announce, send, complete. A worker then makes the
checkpoint, before it checks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore
from registry.catalog import blob_permissions, families, uploads
from registry.catalog.uploads import ExpertUpload
from registry.checkpoints import admission, manifests
from registry.checkpoints.admission import Shard
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_header import parse_header
from registry.database import db
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import InvalidCheckpoint, Problem
from registry.imports import lora_adapters
from registry.imports.lora_config import LoraConfig
from registry.imports.sources import Source
from registry.names import is_digest


@dataclass(frozen=True, kw_only=True)
class AdapterAnnouncement:
    """A LoRA or DoRA adapter, as peft saves it, before its bytes are sent.

    `config` is the content of `adapter_config.json`, `weights` the header of its tensors and
    `digest` the SHA-256 of that file. `files` maps names to digests, such as `tokenizer.json`; they
    replace the seed's.
    """

    config: dict[str, Any]
    weights: Shard
    digest: str
    files: Mapping[str, str]


def begin_import(
    session: Session,
    blobs: BlobStore,
    *,
    expert: str,
    family: str,
    license: str,
    description: str,
    adapter: AdapterAnnouncement,
    documents: str,
    sender: int,
) -> ExpertUpload:
    """Announce a version that is imported; `documents` is the digest of its sample documents.

    Announcing the same again returns the same version. Raises NotFound for the family, InvalidInput
    for name, license and documents, InvalidCheckpoint for an adapter that contradicts itself,
    Incompatible for one that is none of the family's seed, and Conflict as
    `uploads.find_or_add_version`.
    """
    uploads.check_announced(expert, license=license, documents=documents)
    parent = families.find_ready(session, family)
    db.release(session)
    summary = check_adapter(adapter, manifests.load(blobs, parent.seed_digest))
    source = Source(
        kind="adapter",
        digest=adapter.digest,
        size=adapter.weights.size,
        config=adapter.config,
        files=dict(adapter.files),
    )
    wanted = source.digests() | {documents}
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


def check_adapter(adapter: AdapterAnnouncement, seed: Manifest) -> str:
    """Check an adapter against the seed before its bytes are sent, and describe it in a sentence.

    Raises InvalidCheckpoint and Incompatible.
    """
    config = LoraConfig.read(adapter.config)
    shard = adapter.weights
    spans = parse_header(
        shard.header, file_size=shard.size, file=shard.file, pointer="/weights/header"
    )
    problems = list(admission.file_problems(adapter.files))
    if not is_digest(adapter.digest):
        detail = f"{adapter.digest!r} is not a SHA-256 in lower-case hexadecimal"
        problems.append(Problem("/digest", detail))
    if problems:
        raise InvalidCheckpoint("the adapter is refused", problems=tuple(problems))
    return lora_adapters.plan(config, spans, seed).summary
