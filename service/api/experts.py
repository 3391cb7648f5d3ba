"""/experts: register experts in two steps, list them, and find the nearest to a text."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from sqlalchemy import orm

from assembler.jobs import job_ids
from assembler.mixes import job_events
from assembler.routing import nearest_experts, projection_corpus
from assembler.routing.embedder import embedders
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.catalog import embeddings, experts, imports, kept_documents, uploads
from registry.catalog.uploads import ExpertUpload
from registry.checkpoints import chat_templates, manifests, notes
from registry.database import db
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import Conflict, NotFound
from service.api.announcements import announcement_of, import_of, missing_blobs, tensor_sizes
from service.keys import Caller
from service.schemas.checkpoints import DocumentsWish
from service.schemas.common import Line, Page
from service.schemas.experts import (
    ExpertBody,
    ExpertWithVersions,
    Suggestion,
    SuggestRequest,
    VersionBody,
    VersionRequest,
    VersionUploadBody,
)
from service.schemas.imports import ImportRequest
from service.web.auth import Reader, Writer
from service.web.checked_routes import CheckedRoute
from service.web.deps import After, Blobs, ExpertName, Limit, Session, VersionNumber

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/experts", tags=["experts"], route_class=CheckedRoute)

# Entries of a cache: one truth value for each version that was shown.
MAX_CACHED = 4096

Words = Annotated[Line, Query(description="Text to find in names and descriptions.")]
OfFamily = Annotated[Line | None, Query(description="Only experts of this family.")]


@router.post("/{name}/versions", status_code=201)
def begin(
    name: ExpertName, body: VersionRequest, session: Session, blobs: Blobs, caller: Writer
) -> VersionUploadBody:
    """Announce a version; the answer lists the blobs to send. Announce it again to see what is
    still missing."""
    upload = uploads.begin_expert_version(
        session,
        blobs,
        expert=name,
        family=body.family,
        license=body.license,
        description=body.description,
        checkpoint=announcement_of(body),
        documents=body.documents,
        sender=caller.key_id,
    )
    _wish(session, blobs, upload, body, caller)
    sizes = tensor_sizes(blobs, experts.checkpoint_digest(upload.version))
    return _upload_body(session, blobs, upload, sizes, caller)


@router.post("/{name}/imports", status_code=201)
def begin_import(
    name: ExpertName, body: ImportRequest, session: Session, blobs: Blobs, caller: Writer
) -> VersionUploadBody:
    """Announce a version that is no checkpoint yet, but an adapter, a GGUF file, or an address.
    Send what is missing and complete it like any version; a worker then fetches what lies at the
    address, makes the checkpoint and checks it."""
    announced = import_of(body)
    upload = imports.begin_import(
        session,
        blobs,
        expert=name,
        family=body.family,
        license=body.license,
        description=body.description,
        announced=announced,
        documents=body.documents,
        sender=caller.key_id,
    )
    _wish(session, blobs, upload, body, caller)
    source = announced.source()
    sizes = {source.digest: source.size}
    return _upload_body(session, blobs, upload, sizes, caller)


@router.post("/{name}/versions/{number}/complete", status_code=202)
def complete(
    name: ExpertName, number: VersionNumber, session: Session, blobs: Blobs, caller: Writer
) -> VersionBody:
    """Hand what was sent to a worker, which checks all of it and embeds the domain. Ask for the
    version to see its state. A version that failed is tried again."""
    version = uploads.complete_expert_version(
        session, blobs, expert=name, number=number, sender=caller.key_id
    )
    job_events.wake(session)
    return _body(session, version)


@router.post("/{name}/versions/{number}/retry", status_code=202)
def retry(name: ExpertName, number: VersionNumber, session: Session, _: Writer) -> VersionBody:
    """Check and embed a version that failed once more. Any other version stays as it is."""
    version = experts.retry(session, expert=name, number=number)
    job_events.wake(session)
    return _body(session, version)


@router.delete("/{name}/versions/{number}/documents")
def forget_documents(
    name: ExpertName, number: VersionNumber, session: Session, blobs: Blobs, caller: Writer
) -> VersionBody:
    """Delete the documents of a version; its domain embedding stays, so mixes can still use it.
    Backups that were made before still hold them."""
    version = experts.find_version(session, expert=name, number=number)
    _forget(session, blobs, version, caller)
    return _body(session, experts.find_version(session, expert=name, number=number))


@router.get("")
def list_page(
    session: Session,
    _: Reader,
    q: Words = "",
    family: OfFamily = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[ExpertBody]:
    """List experts by name."""
    rows = experts.find_page(session, text=q, family=family, after=after or "", limit=limit + 1)
    newest = experts.find_newest(session, [row.name for row in rows])
    db.release(session)  # manifests are read for the notes
    found = {version.expert_id: _notes(version) for version in newest}
    bodies = [ExpertBody.of(row, notes=found.get(row.id, [])) for row in rows]
    return Page.of(bodies, limit=limit)


@router.get("/{name}")
def get(name: ExpertName, session: Session, _: Reader) -> ExpertWithVersions:
    """Return an expert with its versions."""
    versions = _bodies(session, experts.find_versions(session, name))
    expert = ExpertBody.of(experts.find(session, name), notes=versions[0].notes if versions else [])
    try:
        newest = _body(session, experts.pin(session, name))
    except Conflict:
        newest = None
    return ExpertWithVersions(**expert.model_dump(), versions=versions, newest=newest)


@router.get("/{name}/versions/{number}")
def get_version(
    name: ExpertName, number: VersionNumber, session: Session, _: Reader
) -> VersionBody:
    """Return a version of an expert."""
    return _body(session, experts.find_version(session, expert=name, number=number))


# `/experts:suggest` is not below `/experts/`.
suggest_router = APIRouter(tags=["experts"], route_class=CheckedRoute)


@suggest_router.post("/experts:suggest")
def suggest(body: SuggestRequest, session: Session, _: Reader) -> Page[Suggestion]:
    """Return the experts of a family whose domains are nearest to a text, nearest first."""
    neighbors = nearest_experts.nearest(session, body.text, family=body.family, limit=body.limit)
    data = [
        Suggestion(
            expert=near.version.expert.name,
            ref=experts.ref_of(near.version),
            similarity=near.similarity,
        )
        for near in neighbors
    ]
    return Page(data=data, has_more=False)


def _upload_body(
    session: orm.Session,
    blobs: BlobStore,
    upload: ExpertUpload,
    sizes: Mapping[str, int],
    caller: Caller,
) -> VersionUploadBody:
    # What was forgotten is not asked for again.
    version = upload.version
    forgotten = {version.documents_digest} if version.kept_documents is None else set()
    wanted = [digest for digest in upload.missing if digest not in forgotten]
    missing = missing_blobs(blobs, wanted, sizes=sizes, sender=caller.key_id)
    return VersionUploadBody(**_body(session, upload.version).model_dump(), missing=missing)


def _wish(
    session: orm.Session,
    blobs: BlobStore,
    upload: ExpertUpload,
    wished: DocumentsWish,
    caller: Caller,
) -> None:
    """Store what the owner wishes for the documents; what is ready is forgotten at once."""
    version = upload.version
    kept_documents.wish(
        session, version, private=wished.private_documents, forget=wished.forget_documents
    )
    if wished.forget_documents and version.state is VersionState.READY:
        _forget(session, blobs, version, caller)
    db.release(session)  # manifests are read next


def _forget(session: orm.Session, blobs: BlobStore, version: ExpertVersion, caller: Caller) -> None:
    if version.kept_documents is None:
        return
    projection_corpus.take_out(session, blobs, version)
    kept_documents.forget(session, version.id)
    job_events.record(
        session,
        job_ids.of_check(version),
        type="message",
        message=f"documents of {experts.ref_of(version)} forgotten",
        data={"documents": version.documents_digest, "key": caller.key_id},
    )
    log.info("documents forgotten", version=experts.ref_of(version), key_id=caller.key_id)


def _body(session: orm.Session, version: ExpertVersion) -> VersionBody:
    [body] = _bodies(session, [version])
    return body


def _bodies(session: orm.Session, versions: Sequence[ExpertVersion]) -> list[VersionBody]:
    embedded = embeddings.find_embedded(session, versions, embedders_of=embedders)
    db.release(session)  # manifests are read for notes and warnings
    return [
        VersionBody.of(
            version,
            embedded=version.id in embedded,
            notes=_notes(version),
            warnings=_warnings(version),
        )
        for version in versions
    ]


def _warnings(version: ExpertVersion) -> list[str]:
    """Return what an owner should know of a version that can be used."""
    if version.state is not VersionState.READY:
        return []
    try:
        digest = experts.checkpoint_digest(version)
        loses = _loses_template(digest, version.expert.family.seed_digest)
    except NotFound:
        # Its blobs are lost, which is no reason not to list it.
        return []
    return [f"{experts.ref_of(version)} {chat_templates.LOST}"] if loses else []


def _notes(version: ExpertVersion) -> list[str]:
    source = [] if version.imported_from is None else [version.imported_from]
    if version.manifest_digest is None:
        return source
    try:
        return source + _sentences(version.manifest_digest)
    except NotFound:
        return source


@lru_cache(MAX_CACHED)
def _sentences(manifest_digest: str) -> list[str]:
    return notes.sentences(manifests.load(blob_stores.store(), manifest_digest))


@lru_cache(MAX_CACHED)
def _loses_template(manifest_digest: str, seed_digest: str) -> bool:
    # A digest always stands for the same manifest, and all files of a ready version are stored.
    blobs = blob_stores.store()
    manifest, seed = (manifests.load(blobs, digest) for digest in (manifest_digest, seed_digest))
    return chat_templates.loses_template(manifest, seed, blobs)
