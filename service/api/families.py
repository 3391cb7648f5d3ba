"""/families: seeds, and the projections and policies of each family."""

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from assembler.mixes import job_events
from assembler.recipes import family_policies
from assembler.routing import projection_corpus
from assembler.routing.embedder import states_embedder_digest
from engine.gates.policy import Policy
from registry.catalog import families, projections, uploads
from registry.checkpoints import manifests
from registry.database import db
from service.api.announcements import announcement_of, missing_blobs, tensor_sizes
from service.schemas.common import Page
from service.schemas.families import (
    FamilyBody,
    FamilyRequest,
    FamilyUploadBody,
    PolicyBody,
    ProjectionBody,
    ProjectionRequest,
    SeedBody,
)
from service.web import projection_progress
from service.web.auth import Reader, Writer
from service.web.changes import PolicyChanges
from service.web.checked_routes import CheckedRoute
from service.web.deps import Blobs, FamilyName, Session, VersionNumber

router = APIRouter(prefix="/families", tags=["families"], route_class=CheckedRoute)

NewPolicy = Annotated[PolicyChanges, Body(title="Policy")]


@router.post("", status_code=201)
def begin(body: FamilyRequest, session: Session, blobs: Blobs, caller: Writer) -> FamilyUploadBody:
    """Announce the seed of a family; the answer lists the blobs to send. Until an expert uses the
    family, another seed replaces the first."""
    upload = uploads.begin_family(
        session,
        blobs,
        name=body.name,
        license=body.license,
        description=body.description,
        checkpoint=announcement_of(body),
        sender=caller.key_id,
    )
    missing = missing_blobs(
        blobs,
        upload.missing,
        sizes=tensor_sizes(blobs, upload.family.seed_digest),
        sender=caller.key_id,
    )
    return FamilyUploadBody(**FamilyBody.of(upload.family).model_dump(), missing=missing)


@router.get("")
def list_all(session: Session, _: Reader) -> Page[FamilyBody]:
    """List all families."""
    return Page(data=[FamilyBody.of(row) for row in families.find_all(session)], has_more=False)


@router.get("/{name}")
def get(name: FamilyName, session: Session, _: Reader) -> FamilyBody:
    """Return a family."""
    return FamilyBody.of(families.find(session, name))


@router.get("/{name}/seed")
def get_seed(name: FamilyName, session: Session, blobs: Blobs, _: Reader) -> SeedBody:
    """Return what experts of a family are compared with: config, dtypes and shapes, digests."""
    digest = families.find_ready(session, name).seed_digest
    db.release(session)
    return SeedBody.of(manifests.load(blobs, digest))


@router.delete("/{name}")
def delete(name: FamilyName, session: Session, _: Writer) -> FamilyBody:
    """Delete a family that no expert uses, with its projections and policies. Otherwise the error
    names the experts."""
    family = FamilyBody.of(families.find(session, name))
    families.delete_family(session, name)
    return family


@router.post("/{name}/complete", status_code=202)
def complete(name: FamilyName, session: Session, blobs: Blobs, caller: Writer) -> FamilyBody:
    """Hand the seed that was sent to a worker, which checks all of it. Ask for the family to see
    its state. A seed that failed is tried again."""
    family = uploads.complete_family(session, blobs, name=name, sender=caller.key_id)
    job_events.wake(session)
    return FamilyBody.of(family)


@router.post("/{name}/retry", status_code=202)
def retry(name: FamilyName, session: Session, _: Writer) -> FamilyBody:
    """Check a seed that failed once more. Any other family stays as it is."""
    family = families.retry(session, name)
    job_events.wake(session)
    return FamilyBody.of(family)


@router.post("/{name}/projections", status_code=202)
def request_projection(
    name: FamilyName,
    body: ProjectionRequest,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    caller: Writer,
) -> ProjectionBody:
    """Train a projection. The same documents and training find the same projection again."""
    family = families.find_ready(session, name)
    shared = projection_corpus.of_all_experts(session, family=name) if body.all_experts else []
    if body.documents is not None:
        uploads.check_projection_documents(session, blobs, body.documents, sender=caller.key_id)
    projection = projections.request(
        session,
        family=name,
        documents_digest=projection_corpus.with_expert_documents(
            session,
            blobs,
            family=name,
            documents_digest=body.documents,
            refs=[*body.experts, *(ref for ref in shared if ref not in body.experts)],
        ),
        embedder_digest=states_embedder_digest(family.seed_digest),
        training=body.training.model_dump(),
    )
    job_events.wake(session)
    response.headers["Location"] = f"{request.url.path}/{projection.number}"
    return ProjectionBody.of(projection)


@router.get("/{name}/projections")
def list_projections(name: FamilyName, session: Session, _: Reader) -> Page[ProjectionBody]:
    """List the projections of a family."""
    rows = projections.find_all(session, family=name)
    data = [ProjectionBody.of(row, projection_progress.find(session, row)) for row in rows]
    return Page(data=data, has_more=False)


@router.get("/{name}/projections/{number}")
def get_projection(
    name: FamilyName, number: VersionNumber, session: Session, _: Reader
) -> ProjectionBody:
    """Return a projection of a family."""
    row = projections.find(session, family=name, number=number)
    return ProjectionBody.of(row, projection_progress.find(session, row))


@router.post("/{name}/projections/{number}/retry", status_code=202)
def retry_projection(
    name: FamilyName, number: VersionNumber, session: Session, _: Writer
) -> ProjectionBody:
    """Train a projection that failed once more. Any other one stays as it is."""
    projection = projections.retry(session, family=name, number=number)
    job_events.wake(session)
    return ProjectionBody.of(projection)


@router.put("/{name}/policy")
def put_policy(name: FamilyName, body: NewPolicy, session: Session, _: Writer) -> PolicyBody:
    """Set the policy of a family: the default policy with these changes. Existing mixes keep their
    policy. Setting the same policy again changes nothing."""
    return PolicyBody.of(family_policies.put(session, name, body))


@router.get("/{name}/policy")
def get_policy(name: FamilyName, session: Session, _: Reader) -> PolicyBody:
    """Return the newest version of the policy, which new mixes are gated by."""
    families.find(session, name)
    newest = family_policies.find(session, name)
    if newest is None:
        return PolicyBody(family=name, number=None, policy=Policy(), created_at=None)
    return PolicyBody.of(newest)


@router.get("/{name}/policies")
def list_policies(name: FamilyName, session: Session, _: Reader) -> Page[PolicyBody]:
    """List all versions of the policy, newest first."""
    families.find(session, name)
    rows = family_policies.find_all(session, name)
    return Page(data=[PolicyBody.of(row) for row in rows], has_more=False)
