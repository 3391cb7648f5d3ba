"""/mixes: request and plan mixes, list, follow, cancel, retry and override them."""

from typing import Annotated

from fastapi import APIRouter, Header, Response
from sse_starlette import EventSourceResponse

from assembler.mixes import mixes, overrides
from assembler.planning import plan
from service.api import mix_events
from service.api.mix_requester import MixRequester
from service.schemas.common import MAX_ID, Page
from service.schemas.mixes import MixBody, OverrideRequest, PlanBody
from service.web.auth import Reader, Writer
from service.web.checked_routes import CheckedRoute
from service.web.deps import AfterNumber, Blobs, Limit, MixName, MixRef, Session
from service.web.mix_requests import MixRequest

router = APIRouter(prefix="/mixes", tags=["mixes"], route_class=CheckedRoute)
# `/mixes:plan` is not below `/mixes/`.
plan_router = APIRouter(tags=["mixes"], route_class=CheckedRoute)


LastEventId = Annotated[
    int,
    Header(
        ge=0, le=MAX_ID, description="Number of the last event that you have; later ones follow."
    ),
]


@plan_router.post("/mixes:plan")
def plan_request(body: MixRequest, session: Session, blobs: Blobs, _: Reader) -> PlanBody:
    """Return what a request would do, without doing it: every problem, or what each step reads,
    writes, needs and takes. No tensor is read."""
    return PlanBody.of(plan.plan(session, blobs, body.spec))


@router.post("", status_code=202)
def request(body: MixRequest, requester: MixRequester) -> MixBody:
    """Request a mix. The answer comes at once; `Location` leads to the mix and its progress. A
    request that cannot be fulfilled is refused with every problem it has."""
    return requester.create(body, body.spec, deploy=body.deploy, preview=body.preview)


@router.get("")
def list_page(
    session: Session, _: Reader, limit: Limit = 20, after: AfterNumber = None
) -> Page[MixBody]:
    """List the versions of all mixes, newest first."""
    rows = mixes.find_page(session, before=after, limit=limit + 1)
    return Page.of([MixBody.of(row) for row in rows], limit=limit)


@router.get("/{name}")
def get_newest(name: MixName, session: Session, _: Reader) -> MixBody:
    """Return the newest published version of a mix."""
    return MixBody.of(mixes.get(session, name))


@router.get("/{name}/versions/{number}")
def get(ref: MixRef, session: Session, _: Reader) -> MixBody:
    """Return a version of a mix."""
    return MixBody.of(mixes.get(session, ref))


@router.post("/{name}/versions/{number}/cancel")
def cancel(ref: MixRef, session: Session, _: Writer) -> MixBody:
    """Stop making a version; its running step ends at once. Cancelling again changes nothing."""
    return MixBody.of(mixes.cancel(session, ref))


@router.post("/{name}/versions/{number}/retry", status_code=202)
def retry(ref: MixRef, session: Session, _: Writer) -> MixBody:
    """Go on with a version that failed, was cancelled or is parked: from its last good step and
    checkpoint, not from the beginning. Retrying again changes nothing. A version that its gate
    refused cannot be retried."""
    return MixBody.of(mixes.retry(session, ref))


@router.post("/{name}/versions/{number}/override")
def override(
    ref: MixRef, body: OverrideRequest, session: Session, blobs: Blobs, caller: Writer
) -> MixBody:
    """Publish a mix that its gate refused, and serve it if that was requested. The name of the
    caller's key, the limits and the reason are signed with the artifact."""
    version = overrides.override(
        session, blobs, ref, scope=body.scope, reason=body.reason, by=caller.name
    )
    return MixBody.of(version)


@router.get(
    "/{name}/versions/{number}/events",
    response_class=EventSourceResponse,
    responses={204: {"description": "The mix has ended, and no event follows the last one."}},
)
def follow(ref: MixRef, session: Session, _: Reader, last_event_id: LastEventId = 0) -> Response:
    """Stream the past and coming events of a version as server-sent events, until the mix ends."""
    version = mixes.get(session, ref)
    return mix_events.response(session, version.id, version.job_id, last_id=last_event_id)
