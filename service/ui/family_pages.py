"""The page about families: their list, and a form that registers a seed from the browser."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from assembler.mixes import job_events
from registry.catalog import families, unready
from registry.checkpoints.admission import COMPUTED_FILES, FILE_SUFFIXES, LEGAL_FILES
from registry.checkpoints.file_names import ADAPTER_TENSORS
from service.ui.rendering import PageRoute, Visitor, page
from service.web.deps import FamilyName, Session

router = APIRouter(prefix="/families", route_class=PageRoute, include_in_schema=False)

# What the script in the browser needs to choose the files of a folder, as the client library does.
KEPT = {
    "suffixes": sorted(FILE_SUFFIXES),
    "names": sorted(LEGAL_FILES),
    "computed": sorted(COMPUTED_FILES),
    "adapter": ADAPTER_TENSORS,
}


@router.get("")
def show_families(request: Request, session: Session, _: Visitor) -> Response:
    """List the families, and show the form for a new one."""
    rows = families.find_all(session)
    return page(request, "families.html", families=rows, until=unready.until, kept=KEPT)


@router.post("/{name}/retry")
def retry(name: FamilyName, session: Session, _: Visitor) -> Response:
    """Check the seed of a family that failed once more."""
    families.retry(session, name)
    job_events.wake(session)
    return RedirectResponse("/families", status_code=303)
