"""Shows the plan of a mix beside its form, before the form is sent."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse

from assembler.planning import plan
from service.ui.forms import RequestForm, RevisionForm
from service.ui.rendering import PageRoute, Visitor, render
from service.web.deps import Blobs, Session

router = APIRouter(prefix="/mixes", route_class=PageRoute, include_in_schema=False)


@router.post("/plan")
def show_plan(
    session: Session, blobs: Blobs, _: Visitor, form: Annotated[RequestForm, Form()]
) -> Response:
    planned = plan.plan(session, blobs, form.spec())
    return HTMLResponse(render("_plan.html", plan=planned))


@router.post("/{ref}/plan")
def show_plan_of_revision(
    ref: str, session: Session, blobs: Blobs, _: Visitor, form: Annotated[RevisionForm, Form()]
) -> Response:
    planned = plan.plan(session, blobs, form.spec(ref))
    return HTMLResponse(render("_plan.html", plan=planned))
