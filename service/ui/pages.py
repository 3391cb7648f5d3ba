"""The pages about experts, the playground, and the router of all pages.

Pages call the same functions as the API, so everything that a page does can also be done by REST.
"""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from assembler.mixes import job_events
from engine.serving import deployments
from registry.catalog import experts
from service.ui import (
    expert_views,
    family_pages,
    mix_pages,
    plan_pages,
    playground_views,
    sign_in,
    store_pages,
)
from service.ui.rendering import PageRoute, Visitor, page
from service.web.deps import ExpertName, Session, VersionNumber

router = APIRouter(route_class=PageRoute, include_in_schema=False)
router.include_router(sign_in.router)
router.include_router(family_pages.router)
router.include_router(mix_pages.router)
router.include_router(plan_pages.router)
router.include_router(store_pages.router)

MAX_ROWS = 100


@router.get("/")
def show_start(_: Visitor) -> Response:
    """Lead to the experts."""
    return RedirectResponse("/experts")


@router.get("/favicon.ico")
def redirect_favicon() -> Response:
    return RedirectResponse("/static/favicon.svg")


@router.get("/experts")
def show_experts(request: Request, session: Session, _: Visitor, after: str = "") -> Response:
    """List the experts by name, page by page."""
    rows = experts.find_page(session, after=after, limit=MAX_ROWS + 1)
    return page(
        request,
        "experts.html",
        experts=expert_views.views(session, rows[:MAX_ROWS]),
        has_more=len(rows) > MAX_ROWS,
        is_first=not after,
    )


@router.get("/experts/{name}")
def show_expert(name: str, request: Request, session: Session, _: Visitor) -> Response:
    """Show an expert with its versions."""
    view = expert_views.view(session, experts.find(session, name))
    return page(request, "expert.html", expert=view)


@router.post("/experts/{name}/versions/{number}/retry")
def retry_version(
    name: ExpertName, number: VersionNumber, session: Session, _: Visitor
) -> Response:
    """Check and embed a version that failed once more."""
    experts.retry(session, expert=name, number=number)
    job_events.wake(session)
    return RedirectResponse(f"/experts/{name}", status_code=303)


@router.get("/playground")
def show_playground(request: Request, session: Session, _: Visitor) -> Response:
    """Show the playground: a chat with served models, which says who spoke."""
    models = [asdict(model) for model in playground_views.views(session)]
    starting = [d.model for d in deployments.live(session) if d.state in deployments.PENDING_STATES]
    return page(request, "playground.html", models=models, starting=starting)
