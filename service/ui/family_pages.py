"""The page about families: their list, and a form that registers a seed from the browser."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from assembler.mixes import job_events
from assembler.recipes.recipe import ProjectionTraining
from assembler.routing import projection_corpus
from assembler.routing.embedder import states_embedder_digest
from registry.catalog import families, projections
from registry.checkpoints.admission import COMPUTED_FILES, FILE_SUFFIXES, LEGAL_FILES
from registry.checkpoints.file_names import ADAPTER_TENSORS
from service.ui import family_views
from service.ui.rendering import PageRoute, Visitor, page
from service.web.deps import Blobs, FamilyName, Session

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
    rows = family_views.views(session, families.find_all(session))
    return page(request, "families.html", families=rows, kept=KEPT)


@router.post("/{name}/retry")
def retry(name: FamilyName, session: Session, _: Visitor) -> Response:
    """Check the seed of a family that failed once more."""
    families.retry(session, name)
    job_events.wake(session)
    return RedirectResponse("/families", status_code=303)


@router.post("/{name}/projections")
def learn_again(name: FamilyName, session: Session, blobs: Blobs, _: Visitor) -> Response:
    """Learn the projection again, with the documents of all experts of the family."""
    family = families.find_ready(session, name)
    projections.request(
        session,
        family=name,
        documents_digest=projection_corpus.with_expert_documents(
            session,
            blobs,
            family=name,
            documents_digest=None,
            refs=projection_corpus.of_all_experts(session, family=name),
        ),
        embedder_digest=states_embedder_digest(family.seed_digest),
        training=ProjectionTraining().model_dump(),
    )
    job_events.wake(session)
    return RedirectResponse("/families", status_code=303)
