"""What all pages share: templates and how they print numbers, who is looking, errors as pages."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from registry.errors import NexusmixError, Unauthenticated
from service.errors import status_of
from service.quantities import between, count, duration, size
from service.web.auth import Caller, authenticate

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

TONES = {
    "good": {"ready", "succeeded", "embedded", "passed"},
    "bad": {"failed"},
    "quiet": {"queued", "cancelled", "stopped", "retired", "waiting", "uploading"},
}


def moment(time: datetime) -> str:
    return time.strftime("%d %b %Y, %H:%M UTC").lstrip("0")


def tone(state: str) -> str:
    """The color of a state; what is under way is busy."""
    return next((tone for tone, states in TONES.items() if state in states), "busy")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "size": size,
        "duration": duration,
        "between": lambda seconds: between(seconds.low, seconds.high),
        "count": count,
        "moment": moment,
        "tone": tone,
        "thousands": lambda number: f"{number:,}",
    }
    environment.filters.update(filters)
    return environment


ENVIRONMENT = _environment()


def render(template: str, **context: Any) -> str:
    return ENVIRONMENT.get_template(template).render(context)


def page(
    request: Request, template: str, *, status: int = 200, signed_in: bool = True, **context: Any
) -> HTMLResponse:
    html = render(template, request=request, signed_in=signed_in, **context)
    # Pages show what is so now; going back must not show what was.
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})


def visitor(request: Request) -> Caller:
    """Who is signed in; whoever is not is sent to the login page, and from there back."""
    try:
        return authenticate(request)
    except Unauthenticated:
        target = request.url.path if request.method == "GET" else "/"
        login = f"/login?{urlencode({'next': target})}"
        if "hx-request" in request.headers:
            # htmx would follow a redirect and put the login page into the middle of this one.
            raise HTTPException(HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": login}) from None
        raise HTTPException(HTTPStatus.SEE_OTHER, headers={"Location": login}) from None


def explain(request: Request, error: NexusmixError) -> Response:
    """An error as a page, or as the part of a page that htmx asked for."""
    status = status_of(error)
    if "hx-request" in request.headers:
        return HTMLResponse(render("_error.html", error=error), status_code=status)
    title = HTTPStatus(status).phrase
    return page(request, "error.html", status=status, title=title, error=error)


Visitor = Annotated[Caller, Depends(visitor)]


class PageRoute(APIRoute):
    """Shows errors as a page; programs get problem+json from the API instead."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_explain(request: Request) -> Response:
            try:
                return await handle(request)
            except NexusmixError as error:
                return explain(request, error)

        return handle_or_explain
