"""Signing in with an API key, which a cookie keeps that scripts cannot read."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from registry.errors import Unauthenticated
from service.ui.rendering import PageRoute, page
from service.web.auth import COOKIE, caller_of
from service.web.deps import Session

router = APIRouter(route_class=PageRoute, include_in_schema=False)

YEAR_SECONDS = 365 * 24 * 3600


@router.get("/login")
def show(request: Request, session: Session, key: str = "", next: str = "/") -> Response:
    """Show the form. With `?key=`, the link that `nexusmix up` prints, sign in at once."""
    if key:
        return enter(request, session, key=key, next=next)
    return page(request, "login.html", signed_in=False, next=next, wrong=False)


@router.post("/login")
def enter(
    request: Request,
    session: Session,
    key: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",
) -> Response:
    key = key.strip()
    try:
        caller_of(session, key)
    except Unauthenticated:
        return page(
            request, "login.html", status=401, signed_in=False, next=_own_path(next), wrong=True
        )
    response = RedirectResponse(_own_path(next), status_code=303)
    response.set_cookie(
        COOKIE,
        key,
        max_age=YEAR_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout")
def leave() -> Response:
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE)
    return response


def _own_path(target: str) -> str:
    """Return `target` if it is a path on this server, else `/`: no link leads to another site."""
    return target if target.startswith("/") and target[1:2] not in ("/", "\\") else "/"
