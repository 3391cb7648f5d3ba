"""What the form of a mix would mean, shown beside it before it is sent."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse

from assembler import plan
from assembler.recipe import Preset
from service.deps import Blobs, Session
from service.ui.rendering import PageRoute, Visitor, render

router = APIRouter(prefix="/mixes", route_class=PageRoute, include_in_schema=False)


@router.post("/plan")
def show_plan(
    session: Session,
    blobs: Blobs,
    _: Visitor,
    *,
    family: Annotated[str, Form()],
    tokens: Annotated[int, Form()],
    name: Annotated[str, Form()] = "",
    preset: Annotated[Preset, Form()] = "nexus",
    experts: Annotated[list[str] | None, Form()] = None,
) -> Response:
    planned = plan.plan(
        session,
        blobs,
        name=name,
        family=family,
        experts=experts or [],
        preset=preset,
        finetune={"tokens": tokens},
    )
    return HTMLResponse(render("_plan.html", plan=planned))
