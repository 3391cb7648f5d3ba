"""/mixes: asking for a mix, planning it, and following how it is made."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from sqlalchemy import orm
from sse_starlette import EventSourceResponse

from assembler.mixes import mixes, overrides
from assembler.mixes.new_mix import MixSpec
from assembler.mixes.waivers import Override
from assembler.planning import plan
from assembler.recipes import presets
from assembler.tables import MixVersion
from engine.compression.int8_curve import Curve
from engine.gates.mix_gate import GateReport
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import artifacts
from registry.errors import NotFound
from service.api import mix_events
from service.reports import gate_page
from service.schemas.common import Page
from service.schemas.mixes import MixBody, OverrideRequest, PlanBody, PresetBody
from service.web.auth import Reader, Writer
from service.web.deps import Blobs, Limit, Session
from service.web.idempotency import OncePerKey, Repeatable
from service.web.mix_requests import (
    ExtensionRequest,
    MixRequest,
    RemovalRequest,
    ReplacementRequest,
)

router = APIRouter(prefix="/mixes", tags=["mixes"])
plan_router = APIRouter(tags=["mixes"])
presets_router = APIRouter(prefix="/presets", tags=["mixes"])


@presets_router.get("")
def list_presets(_: Reader) -> Page[PresetBody]:
    """Recipes that have a name: what each is for, what it says, and where it is not the default."""
    return Page(data=[PresetBody.of(name) for name in presets.PRESETS], has_more=False)


@plan_router.post("/mixes:plan")
def plan_request(body: MixRequest, session: Session, blobs: Blobs, _: Reader) -> PlanBody:
    """What a request would mean: all that is wrong with it, or what it would read, write, need and
    take. Nothing is done, and no tensor is read."""
    return PlanBody.of(plan.plan(session, blobs, body.wish))


@router.post("/{name}/versions/{number}/extend:plan")
def plan_extension(
    name: str, number: int, body: ExtensionRequest, session: Session, blobs: Blobs, _: Reader
) -> PlanBody:
    """What the same request to `extend` would mean, as `/mixes:plan` tells it of a new mix."""
    return PlanBody.of(plan.plan(session, blobs, body.wish(f"{name}@{number}")))


@router.post("/{name}/versions/{number}/remove:plan")
def plan_removal(
    name: str, number: int, body: RemovalRequest, session: Session, blobs: Blobs, _: Reader
) -> PlanBody:
    """What the same request to `remove` would mean, as `/mixes:plan` tells it of a new mix."""
    return PlanBody.of(plan.plan(session, blobs, body.wish(f"{name}@{number}")))


@router.post("/{name}/versions/{number}/replace:plan")
def plan_replacement(
    name: str, number: int, body: ReplacementRequest, session: Session, blobs: Blobs, _: Reader
) -> PlanBody:
    """What the same request to `replace` would mean, as `/mixes:plan` tells it of a new mix."""
    return PlanBody.of(plan.plan(session, blobs, body.wish(f"{name}@{number}")))


@router.post("", status_code=202)
def request(
    body: MixRequest,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    repeatable: OncePerKey,
) -> MixBody:
    """Have a mix made. The answer comes at once; `Location` tells how far it is. A request that
    cannot be fulfilled is refused with everything that is wrong with it."""
    answer = _once(repeatable, session, blobs, body, body.wish, deploy=body.deploy)
    return _located(answer, request, response)


@router.post("/{name}/versions/{number}/extend", status_code=202)
def extend(
    name: str,
    number: int,
    body: ExtensionRequest,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    repeatable: OncePerKey,
) -> MixBody:
    """Have a version made from this one, with one expert more."""
    wish = body.wish(f"{name}@{number}")
    answer = _once(repeatable, session, blobs, body, wish, deploy=body.deploy)
    return _located(answer, request, response)


@router.post("/{name}/versions/{number}/remove", status_code=202)
def remove(
    name: str,
    number: int,
    body: RemovalRequest,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    repeatable: OncePerKey,
) -> MixBody:
    """Have a version made from this one, without one of its experts."""
    wish = body.wish(f"{name}@{number}")
    answer = _once(repeatable, session, blobs, body, wish, deploy=body.deploy)
    return _located(answer, request, response)


@router.post("/{name}/versions/{number}/replace", status_code=202)
def replace(
    name: str,
    number: int,
    body: ReplacementRequest,
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    repeatable: OncePerKey,
) -> MixBody:
    """Have a version made from this one, with another expert in the place of one of its own."""
    wish = body.wish(f"{name}@{number}")
    answer = _once(repeatable, session, blobs, body, wish, deploy=body.deploy)
    return _located(answer, request, response)


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


@router.post("/{name}/versions/{number}/override")
def override(
    name: str,
    number: int,
    body: OverrideRequest,
    session: Session,
    blobs: Blobs,
    caller: Writer,
) -> MixBody:
    """Publish what its gate has refused, and have it served if it was to be. Who did it, for which
    limits and why is signed with the artifact, and stays."""
    version = overrides.override(
        session,
        blobs,
        f"{name}@{number}",
        scope=body.scope,
        reason=body.reason,
        by=caller.name,
    )
    return MixBody.of(version)


@router.get("/{name}/versions/{number}/override")
def get_override(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Override:
    """Who published it against its gate, for which limits and why."""
    record = overrides.read(mixes.get(session, f"{name}@{number}"), blobs)
    if record is None:
        raise NotFound(f"the gate of mix {name}@{number} was not overridden")
    return record


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


@router.get("/{name}/versions/{number}/provenance")
def get_provenance(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Response:
    """All that it was made of, by digest, on what, and what came out: to make it again."""
    return _of_artifact(session, blobs, f"{name}@{number}", "provenance")


@router.get("/{name}/versions/{number}/attestation")
def get_attestation(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Response:
    """What this service says of a published version, by digest, and its signature under that."""
    return _of_artifact(session, blobs, f"{name}@{number}", "attestation")


@router.get("/{name}/versions/{number}/gate-report", responses={200: {"model": GateReport}})
def get_gate_report(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Response:
    """What its gate has measured, with the limits, byte by byte as it is signed."""
    digest = _report_digest(mixes.get(session, f"{name}@{number}"))
    return Response(get_bytes(blobs, digest), media_type="application/json")


@router.get("/{name}/versions/{number}/gate-report.html", response_class=HTMLResponse)
def get_gate_page(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Response:
    """The same as a page that needs nothing else, with survival curves and examples."""
    digest = _report_digest(mixes.get(session, f"{name}@{number}"))
    report = GateReport.model_validate_json(get_bytes(blobs, digest))
    page = gate_page.html(report, ref=f"{name}@{number}", digest=digest)
    # It brings its own style, and nothing else.
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _report_digest(version: MixVersion) -> str:
    """Raises NotFound."""
    if version.gate_report_digest is None:
        raise NotFound(f"mix {mixes.ref_of(version)} has not been gated; it is {version.state}")
    return version.gate_report_digest


@router.get("/{name}/versions/{number}/compression")
def get_compression(name: str, number: int, session: Session, blobs: Blobs, _: Reader) -> Curve:
    """The sizes that its compression has tried, each with how far it strays, and what was asked."""
    version = mixes.get(session, f"{name}@{number}")
    if version.curve_digest is None:
        raise NotFound(f"mix {name}@{number} has not been compressed; it is {version.state}")
    return Curve.model_validate_json(get_bytes(blobs, version.curve_digest))


def _of_artifact(
    session: orm.Session, blobs: BlobStore, ref: str, record: Literal["provenance", "attestation"]
) -> Response:
    """What was kept of a version when it was published. Raises NotFound."""
    version = mixes.get(session, ref)
    artifact = None if version.artifact_id is None else artifacts.get(session, version.artifact_id)
    digest: str | None = getattr(artifact, f"{record}_digest", None)
    if digest is None:
        raise NotFound(f"mix {ref} has no {record}; it is {version.state}")
    return Response(get_bytes(blobs, digest), media_type="application/json")


def _once(
    repeatable: Repeatable,
    session: orm.Session,
    blobs: BlobStore,
    body: BaseModel,
    wish: MixSpec,
    *,
    deploy: bool,
) -> MixBody:
    """The version that is asked for, or that the same request got before."""
    answer = repeatable.once(
        session,
        body=body.model_dump(mode="json", exclude_unset=True),
        status=202,
        make=lambda: MixBody.of(mixes.request(session, blobs, wish, deploy=deploy)).model_dump(
            mode="json"
        ),
    )
    return MixBody.model_validate(answer)


def _located(mix: MixBody, request: Request, response: Response) -> MixBody:
    # Up to the collection: a changed mix is answered below the version that it is made from.
    collection = "".join(request.url.path.partition("/mixes")[:2])
    response.headers["Location"] = f"{collection}/{mix.name}/versions/{mix.version}"
    return mix
