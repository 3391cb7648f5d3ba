"""What all pages share: rendering, the signed-in visitor, and errors as pages."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from registry.errors import NexusmixError, Unauthenticated
from service.errors import as_invalid_input, status_of
from service.keys import Caller
from service.reports import html as reports_html
from service.web.admission import before_body
from service.web.auth import authenticate
from service.web.checked_routes import CheckedRoute

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
# Pages show the curves of reports too.
ENVIRONMENT = reports_html.environment([FOLDER / "templates", reports_html.TEMPLATES])


def render(template: str, **context: Any) -> str:
    """Return a page, or a part of one, as HTML."""
    return ENVIRONMENT.get_template(template).render(context)


def page(
    request: Request, template: str, *, status: int = 200, signed_in: bool = True, **context: Any
) -> HTMLResponse:
    """Render a template as a whole page."""
    html = render(template, request=request, signed_in=signed_in, **context)
    # A page shows the present state; the browser's back button must not show an old one.
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})


@before_body
def visitor(request: Request) -> Caller:
    """Return who is signed in. Redirects everybody else to the login page, which leads back."""
    try:
        return authenticate(request)
    except Unauthenticated:
        target = request.url.path if request.method == "GET" else "/"
        login = f"/login?{urlencode({'next': target})}"
        if "hx-request" in request.headers:
            # htmx would follow a redirect and put the login page inside the current page.
            raise HTTPException(HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": login}) from None
        raise HTTPException(HTTPStatus.SEE_OTHER, headers={"Location": login}) from None


def explain(request: Request, error: NexusmixError) -> Response:
    """Show an error as a page, or as a fragment when htmx asks."""
    status = status_of(error)
    if "hx-request" in request.headers:
        return HTMLResponse(render("_error.html", error=error), status_code=status)
    title = HTTPStatus(status).phrase
    return page(request, "error.html", status=status, title=title, error=error)


Visitor = Annotated[Caller, Depends(visitor)]


class PageRoute(CheckedRoute):
    """A route that shows errors as pages; the API answers with problem+json instead."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_explain(request: Request) -> Response:
            try:
                return await handle(request)
            except NexusmixError as error:
                return explain(request, error)
            except (RequestValidationError, DataError) as error:
                return explain(request, as_invalid_input(error))

        return handle_or_explain
