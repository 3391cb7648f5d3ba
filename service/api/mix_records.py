"""/mixes/{name}/versions/{number}: what was measured of a version, and how it was made."""

from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import orm

from assembler.mixes import mixes, overrides
from assembler.mixes.waivers import Override
from assembler.tables import MixVersion
from engine.compression.int8_curve import Curve
from engine.gates.mix_gate import GateReport
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import artifacts
from registry.errors import NotFound
from service.reports import gate_page
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute
from service.web.deps import Blobs, MixRef, Session

router = APIRouter(
    prefix="/mixes/{name}/versions/{number}", tags=["mixes"], route_class=CheckedRoute
)


@router.get("/override")
def get_override(ref: MixRef, session: Session, blobs: Blobs, _: Reader) -> Override:
    """Return who published the mix against its gate, for which limits and why."""
    record = overrides.read(mixes.get(session, ref), blobs)
    if record is None:
        raise NotFound(f"the gate of mix {ref} was not overridden")
    return record


@router.get("/provenance")
def get_provenance(ref: MixRef, session: Session, blobs: Blobs, _: Reader) -> Response:
    """Return everything that the mix was made from, by digest, to make it again."""
    return _artifact_record(session, blobs, ref, "provenance")


@router.get("/attestation")
def get_attestation(ref: MixRef, session: Session, blobs: Blobs, _: Reader) -> Response:
    """Return the signed statement about a published mix: the digests of all its parts."""
    return _artifact_record(session, blobs, ref, "attestation")


@router.get("/gate-report", responses={200: {"model": GateReport}})
def get_gate_report(ref: MixRef, session: Session, blobs: Blobs, _: Reader) -> Response:
    """Return what the gate measured, with its limits, byte for byte as it is signed."""
    digest = _report_digest(mixes.get(session, ref))
    return Response(get_bytes(blobs, digest), media_type="application/json")


@router.get("/gate-report.html", response_class=HTMLResponse)
def get_gate_page(ref: MixRef, session: Session, blobs: Blobs, _: Reader) -> Response:
    """Return the gate report as a page with survival curves and examples."""
    digest = _report_digest(mixes.get(session, ref))
    report = GateReport.model_validate_json(get_bytes(blobs, digest))
    page = gate_page.html(report, ref=ref, digest=digest)
    # The page has its own style, and loads nothing.
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


@router.get("/compression")
def get_compression(ref: MixRef, session: Session, blobs: Blobs, _: Reader) -> Curve:
    """Return the sizes that the compression tried, and how far each one diverges."""
    version = mixes.get(session, ref)
    if version.curve_digest is None:
        raise NotFound(f"mix {ref} has not been compressed; it is {version.state}")
    return Curve.model_validate_json(get_bytes(blobs, version.curve_digest))


def _report_digest(version: MixVersion) -> str:
    """Return the digest of the gate report. Raises NotFound."""
    if version.gate_report_digest is None:
        raise NotFound(f"mix {mixes.ref_of(version)} has not been gated; it is {version.state}")
    return version.gate_report_digest


def _artifact_record(
    session: orm.Session, blobs: BlobStore, ref: str, record: Literal["provenance", "attestation"]
) -> Response:
    """Answer with a record that was stored when the mix was published. Raises NotFound."""
    version = mixes.get(session, ref)
    artifact = None if version.artifact_id is None else artifacts.get(session, version.artifact_id)
    digest: str | None = getattr(artifact, f"{record}_digest", None)
    if digest is None:
        raise NotFound(f"mix {ref} has no {record}; it is {version.state}")
    return Response(get_bytes(blobs, digest), media_type="application/json")
