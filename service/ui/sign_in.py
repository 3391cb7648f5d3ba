"""Signing in with an API key or a link. The browser keeps a session, never the key."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from registry.errors import Unauthenticated
from service import key_format, keys, sessions
from service.ui.rendering import PageRoute, page
from service.web import auth
from service.web.deps import Session

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/login")
def show(request: Request, next: str = "/") -> Response:
    """Show the form."""
    return _form(request, next=next)


@router.post("/login")
def enter(
    request: Request,
    session: Session,
    key: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Sign in with a key."""
    try:
        # Otherwise another page could sign a visitor in as somebody else.
        auth.refuse_other_origins(request)
        caller = keys.find_caller(session, key_format.check(key.strip()))
    except Unauthenticated as error:
        return _form(request, next=next, error=error)
    return _signed_in(request, sessions.begin(session, caller.key_id), next=next)


@router.get("/sign-in")
def enter_by_link(request: Request, session: Session, word: str = "") -> Response:
    """Sign in with a link, which works once."""
    try:
        session_id = sessions.redeem(session, word)
    except Unauthenticated as error:
        return _form(request, next="/", error=error)
    return _signed_in(request, session_id, next="/")


@router.post("/logout")
def leave(request: Request, session: Session) -> Response:
    """End the session, here and in the browser."""
    auth.refuse_other_origins(request)
    if session_id := auth.session_in_cookie(request):
        sessions.end(session, session_id)
    response = RedirectResponse("/login", status_code=303)
    auth.forget_session(request, response)
    return response


def _form(request: Request, *, next: str, error: Unauthenticated | None = None) -> Response:
    return page(
        request,
        "login.html",
        status=401 if error else 200,
        signed_in=False,
        next=_own_path(next),
        error=error,
    )


def _signed_in(request: Request, session_id: str, *, next: str) -> Response:
    response = RedirectResponse(_own_path(next), status_code=303)
    auth.set_session(request, response, session_id)
    return response


def _own_path(target: str) -> str:
    """Return `target` if it is a path on this server, else `/`: no link leads to another site."""
    return target if target.startswith("/") and target[1:2] not in ("/", "\\") else "/"
