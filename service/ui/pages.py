"""The pages about experts and the chat, and the router of all pages.

They call the same domain functions as the API; nothing can be done here that it cannot do.
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from engine.serving import deployments
from registry.catalog import experts
from service.ui import expert_views, mix_pages, plan_pages, sign_in
from service.ui.rendering import PageRoute, Visitor, page
from service.web.deps import Blobs, Session

router = APIRouter(route_class=PageRoute, include_in_schema=False)
router.include_router(sign_in.router)
router.include_router(mix_pages.router)
router.include_router(plan_pages.router)

MAX_EXPERTS = 200


@router.get("/")
def show_start(_: Visitor) -> Response:
    return RedirectResponse("/experts")


@router.get("/favicon.ico")
def redirect_favicon() -> Response:
    return RedirectResponse("/static/favicon.svg")


@router.get("/experts")
def show_experts(request: Request, session: Session, blobs: Blobs, _: Visitor) -> Response:
    rows = experts.find_page(session, limit=MAX_EXPERTS)
    views = [expert_views.view(session, blobs, expert) for expert in rows]
    return page(request, "experts.html", experts=views)


@router.get("/experts/{name}")
def show_expert(
    name: str, request: Request, session: Session, blobs: Blobs, _: Visitor
) -> Response:
    view = expert_views.view(session, blobs, experts.find(session, name))
    return page(request, "expert.html", expert=view)


@router.get("/chat")
def show_chat(request: Request, session: Session, _: Visitor, model: str = "") -> Response:
    models = [deployment.model for deployment in deployments.ready(session)]
    starting = [d.model for d in deployments.live(session) if d.state in deployments.PENDING_STATES]
    return page(request, "chat.html", models=models, starting=starting, model=model)
