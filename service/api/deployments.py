"""/deployments: which artifact is served as which model."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import orm

from engine.serving import deployments, option_changes
from engine.vllm_server.engine_options import EngineOptions
from registry.catalog import artifacts
from registry.database.tables import Artifact
from registry.errors import InvalidInput, NotFound, Problem
from registry.names import check_name
from service.schemas.common import Id, Line, Page
from service.schemas.deployments import DeploymentBody, DeploymentChange, DeploymentRequest
from service.web import engine_options
from service.web.auth import Reader, Writer
from service.web.checked_routes import CheckedRoute
from service.web.deps import AfterNumber, Blobs, Limit, Session
from service.web.idempotency import OncePerKey

router = APIRouter(prefix="/deployments", tags=["deployments"], route_class=CheckedRoute)

DeploymentId = Annotated[Id, Path(description="Id of the deployment.")]
OfModel = Annotated[Line | None, Query(description="Only deployments of this model name.")]


@router.post("", status_code=202)
def request(
    body: DeploymentRequest,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    repeatable: OncePerKey,
) -> DeploymentBody:
    """Serve an artifact. The present model of that name serves on until the new one is ready.

    Options of the engine that do not fit are refused, all of them in one answer."""
    content = body.model_dump()
    answer = repeatable.earlier(session, body=content)
    if answer is None:
        model = check_name(body.model, at="/model")
        digest, options = _artifact(session, body).manifest_digest, None
        if body.options is not None:
            options = engine_options.read(body.options, digest, blobs)
        make = partial(_request, session, body, model=model, options=options)
        answer = repeatable.once(session, body=content, status=202, make=make)
    deployment = DeploymentBody.model_validate(answer)
    response.headers["Location"] = f"{request.url.path}/{deployment.id}"
    return deployment


@router.get("")
def list_page(
    session: Session,
    _: Reader,
    model: OfModel = None,
    limit: Limit = 20,
    after: AfterNumber = None,
) -> Page[DeploymentBody]:
    """List deployments, newest first."""
    rows = deployments.find_page(session, model=model, before=after, limit=limit + 1)
    return Page.of([DeploymentBody.of(row) for row in rows], limit=limit)


@router.get("/{deployment_id}")
def get(deployment_id: DeploymentId, session: Session, _: Reader) -> DeploymentBody:
    """Return a deployment."""
    return DeploymentBody.of(deployments.get(session, deployment_id))


@router.patch("/{deployment_id}", status_code=202)
def change(
    deployment_id: DeploymentId,
    body: DeploymentChange,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    _: Writer,
) -> DeploymentBody:
    """Serve a model with other options. Return the deployment that takes its name over.

    The present one serves on until the new one is ready. Options that do not fit are refused, all
    of them in one answer."""
    digest = deployments.get(session, deployment_id).manifest_digest
    options = engine_options.read(body.options, digest, blobs)
    successor = option_changes.change(session, deployments.get(session, deployment_id), options)
    path = request.url.path.rpartition("/")[0]
    response.headers["Location"] = f"{path}/{successor.id}"
    return DeploymentBody.of(successor)


@router.delete("/{deployment_id}")
def stop(deployment_id: DeploymentId, session: Session, _: Writer) -> DeploymentBody:
    """Stop a deployment. Requests that have started are still answered. Stopping it again changes
    nothing."""
    deployment = deployments.get(session, deployment_id)
    deployments.stop(session, deployment)
    return DeploymentBody.of(deployment)


def _request(
    session: orm.Session, body: DeploymentRequest, *, model: str, options: EngineOptions | None
) -> dict[str, Any]:
    artifact = _artifact(session, body)
    deployment = deployments.request(
        session, artifact, model=model, pinned=body.pinned, options=options
    )
    return DeploymentBody.of(deployment).model_dump(mode="json")


def _artifact(session: orm.Session, body: DeploymentRequest) -> Artifact:
    """Return the artifact of a request. Raises InvalidInput."""
    try:
        return artifacts.get(session, body.artifact)
    except NotFound as error:
        problem = Problem("/artifact", error.detail)
        raise InvalidInput("nothing to deploy", problems=(problem,)) from error
