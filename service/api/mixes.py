"""/mixes: asking for a mix, and following how it is made."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import orm
from sse_starlette import EventSourceResponse

from assembler import mixes
from registry.blobs import get_bytes
from registry.errors import NotFound
from service.api import mix_events
from service.auth import Reader, Writer
from service.deps import Blobs, Limit, Session
from service.idempotency import OncePerKey
from service.schemas import MixBody, MixRequest, Page

router = APIRouter(prefix="/mixes", tags=["mixes"])


@router.post("", status_code=202)
def request(
    body: MixRequest,
    request: Request,
    response: Response,
    session: Session,
    repeatable: OncePerKey,
) -> MixBody:
    """Have a mix made. The answer comes at once; `Location` tells how far it is."""
    answer = repeatable.once(
        session,
        body=body.model_dump(mode="json"),
        status=202,
        make=partial(_request, session, body),
    )
    mix = MixBody.model_validate(answer)
    response.headers["Location"] = f"{request.url.path}/{mix.name}/versions/{mix.version}"
    return mix


@router.get("")
def list_page(
    session: Session,
    _: Reader,
    limit: Limit = 20,
    after: Annotated[int | None, Query(description="The last `id` of the page before.")] = None,
) -> Page[MixBody]:
    """Versions of all mixes, newest first."""
    rows = mixes.find_page(session, before=after, limit=limit + 1)
    return Page.of([MixBody.of(row) for row in rows], limit=limit)


@router.get("/{name}")
def get_newest(name: str, session: Session, _: Reader) -> MixBody:
    return MixBody.of(mixes.get(session, name))


@router.get("/{name}/versions/{number}")
def get(name: str, number: int, session: Session, _: Reader) -> MixBody:
    return MixBody.of(mixes.get(session, f"{name}@{number}"))


@router.post("/{name}/versions/{number}/cancel")
def cancel(name: str, number: int, session: Session, _: Writer) -> MixBody:
    """Stop it; its running step ends at once. Cancelling again changes nothing."""
    return MixBody.of(mixes.cancel(session, f"{name}@{number}"))


@router.get("/{name}/versions/{number}/events", response_class=EventSourceResponse)
def follow(
    name: str,
    number: int,
    session: Session,
    _: Reader,
    last_event_id: Annotated[int, Header(ge=0)] = 0,
) -> Response:
    """What happened so far and what happens, as server-sent events; ends when the mix is over."""
    version = mixes.get(session, f"{name}@{number}")
    return mix_events.response(version.id, version.job_id, last_id=last_event_id)


@router.get("/{name}/versions/{number}/gate-report")
def get_gate_report(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Response:
    version = mixes.get(session, f"{name}@{number}")
    if version.gate_report_digest is None:
        raise NotFound(f"mix {name}@{number} has not been gated; it is {version.state}")
    report = get_bytes(blobs, version.gate_report_digest)
    return Response(report, media_type="application/json")


def _request(session: orm.Session, body: MixRequest) -> dict[str, Any]:
    # The parts themselves, not their dump: a recipe is made of them.
    fields = {name: getattr(body, name) for name in MixRequest.model_fields}
    return MixBody.of(mixes.request(session, **fields)).model_dump(mode="json")
