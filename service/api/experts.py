"""/experts: registration in two steps, and finding what is registered."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import orm

from assembler.mixes import job_events
from assembler.routing import nearest_experts
from assembler.routing.embedder import embedders
from registry.catalog import embeddings, experts, uploads
from registry.database.tables import ExpertVersion
from registry.errors import NotFound
from service.api.announcements import missing_blobs, shards_of
from service.schemas.common import Page
from service.schemas.experts import (
    ExpertBody,
    ExpertWithVersions,
    Suggestion,
    SuggestRequest,
    VersionBody,
    VersionRequest,
    VersionUploadBody,
)
from service.web.auth import Reader, Writer
from service.web.deps import After, Blobs, Limit, Session

router = APIRouter(prefix="/experts", tags=["experts"])

Words = Annotated[str, Query(description="Part of a name or description.")]


@router.post("/{name}/versions", status_code=201)
def begin(
    name: str, body: VersionRequest, session: Session, blobs: Blobs, _: Writer
) -> VersionUploadBody:
    """Announce a version; the answer says what must be sent. Again: what is still missing."""
    upload = uploads.begin_expert_version(
        session,
        blobs,
        expert=name,
        family=body.family,
        license=body.license,
        description=body.description,
        config=body.config,
        files=body.files,
        shards=shards_of(body),
        digests=body.digests,
        documents=body.documents,
    )
    version = _body(session, upload.version)
    missing = missing_blobs(blobs, upload.missing, manifest_digest=version.manifest_digest)
    return VersionUploadBody(**version.model_dump(), missing=missing)


@router.post("/{name}/versions/{number}/complete")
def complete(name: str, number: int, session: Session, blobs: Blobs, _: Writer) -> VersionBody:
    """Check all bytes and make the version ready; its domain is embedded soon after."""
    version = uploads.complete_expert_version(session, blobs, expert=name, number=number)
    job_events.wake(session)
    return _body(session, version)


@router.get("")
def list_page(
    session: Session,
    _: Reader,
    q: Words = "",
    family: str | None = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[ExpertBody]:
    rows = experts.find_page(session, text=q, family=family, after=after or "", limit=limit + 1)
    return Page.of([ExpertBody.of(row) for row in rows], limit=limit)


@router.get("/{name}")
def get(name: str, session: Session, _: Reader) -> ExpertWithVersions:
    expert = ExpertBody.of(experts.find(session, name))
    versions = [_body(session, row) for row in experts.find_versions(session, name)]
    return ExpertWithVersions(**expert.model_dump(), versions=versions)


@router.get("/{name}/versions/{number}")
def get_version(name: str, number: int, session: Session, _: Reader) -> VersionBody:
    return _body(session, experts.find_version(session, expert=name, number=number))


# Not below /experts/{name}: a verb on all of them.
suggest_router = APIRouter(tags=["experts"])


@suggest_router.post("/experts:suggest")
def suggest(body: SuggestRequest, session: Session, _: Reader) -> Page[Suggestion]:
    """The experts of a family whose domains are nearest to a text, nearest first."""
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


def _body(session: orm.Session, version: ExpertVersion) -> VersionBody:
    try:
        current = embedders(version.expert.family.seed_digest)
        embeddings.find(session, version, embedders=current)
    except NotFound:
        return VersionBody.of(version, embedded=False)
    return VersionBody.of(version, embedded=True)
