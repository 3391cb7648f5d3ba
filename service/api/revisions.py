"""/mixes/{name}/versions/{number}: a new version with other experts, or a plan of it."""

from fastapi import APIRouter

from assembler.planning import plan
from service.api.mix_requester import MixRequester
from service.schemas.mixes import MixBody, PlanBody
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute
from service.web.deps import Blobs, MixRef, Session
from service.web.mix_requests import ExtensionRequest, RemovalRequest, ReplacementRequest

router = APIRouter(
    prefix="/mixes/{name}/versions/{number}", tags=["mixes"], route_class=CheckedRoute
)


@router.post("/extend", status_code=202)
def extend(ref: MixRef, body: ExtensionRequest, requester: MixRequester) -> MixBody:
    """Make a version with one more expert."""
    return requester.create(body, body.spec(ref), deploy=body.deploy, preview=body.preview)


@router.post("/remove", status_code=202)
def remove(ref: MixRef, body: RemovalRequest, requester: MixRequester) -> MixBody:
    """Make a version without one of the experts."""
    return requester.create(body, body.spec(ref), deploy=body.deploy, preview=body.preview)


@router.post("/replace", status_code=202)
def replace(ref: MixRef, body: ReplacementRequest, requester: MixRequester) -> MixBody:
    """Make a version with another expert in the place of one of the experts."""
    return requester.create(body, body.spec(ref), deploy=body.deploy, preview=body.preview)


@router.post("/extend:plan")
def plan_extension(
    ref: MixRef, body: ExtensionRequest, session: Session, blobs: Blobs, _: Reader
) -> PlanBody:
    """Return what `extend` would do with the same body, without doing it."""
    return PlanBody.of(plan.plan(session, blobs, body.spec(ref)))


@router.post("/remove:plan")
def plan_removal(
    ref: MixRef, body: RemovalRequest, session: Session, blobs: Blobs, _: Reader
) -> PlanBody:
    """Return what `remove` would do with the same body, without doing it."""
    return PlanBody.of(plan.plan(session, blobs, body.spec(ref)))


@router.post("/replace:plan")
def plan_replacement(
    ref: MixRef, body: ReplacementRequest, session: Session, blobs: Blobs, _: Reader
) -> PlanBody:
    """Return what `replace` would do with the same body, without doing it."""
    return PlanBody.of(plan.plan(session, blobs, body.spec(ref)))
