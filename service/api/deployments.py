"""/deployments: which artifact is served as which model."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import orm

from engine.serving import deployments
from registry.catalog import artifacts
from registry.errors import InvalidInput, NotFound, Problem
from registry.names import check_name
from service.schemas.common import Id, Line, Page
from service.schemas.deployments import DeploymentBody, DeploymentRequest
from service.web.auth import Reader, Writer
from service.web.checked_routes import CheckedRoute
from service.web.deps import AfterNumber, Limit, Session
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
    repeatable: OncePerKey,
) -> DeploymentBody:
    """Serve an artifact. The present model of that name serves on until the new one is ready."""
    answer = repeatable.once(
        session, body=body.model_dump(), status=202, make=partial(_request, session, body)
    )
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


@router.delete("/{deployment_id}")
def stop(deployment_id: DeploymentId, session: Session, _: Writer) -> DeploymentBody:
    """Stop a deployment. Requests that have started are still answered. Stopping it again changes
    nothing."""
    deployment = deployments.get(session, deployment_id)
    deployments.stop(session, deployment)
    return DeploymentBody.of(deployment)


def _request(session: orm.Session, body: DeploymentRequest) -> dict[str, Any]:
    model = check_name(body.model, at="/model")
    try:
        artifact = artifacts.get(session, body.artifact)
    except NotFound as error:
        problem = Problem("/artifact", error.detail)
        raise InvalidInput("nothing to deploy", problems=(problem,)) from error
    deployment = deployments.request(session, artifact, model=model, pinned=body.pinned)
    return DeploymentBody.of(deployment).model_dump(mode="json")
