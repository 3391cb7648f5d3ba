"""Finds out who sends a request, and whether the route's scope allows it.

Programs send an API key as a bearer token. Browsers send the id of a session in a cookie. The table
`service.scopes.ROUTES` says what each route asks for.
"""

import ipaddress
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response

from registry.database import db
from registry.errors import Forbidden, Unauthenticated
from registry.settings import settings
from service import key_format, keys, sessions
from service import scopes as table
from service.keys import Caller
from service.scopes import Scope
from service.web.admission import before_body
from service.web.remembered import Remembered

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Headers of proxies: a request with one of them does not come from where it seems to.
FORWARDING_HEADERS = frozenset({"forwarded", "via", "x-real-ip", "cf-connecting-ip", "client-ip"})
FORWARDING_PREFIX = "x-forwarded"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@before_body
def authenticate(request: Request) -> Caller:
    """Return the caller, whose scopes allow the route. Raises Unauthenticated and Forbidden."""
    return _allowed(request, _find_caller(presented(request)))


def presented(request: Request) -> str:
    """Return the key in the bearer token, or else the session in the cookie of our pages.

    Raises Unauthenticated.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        # A session is for the browser that got it.
        return key_format.check(token.strip())
    if session_id := session_in_cookie(request):
        refuse_other_origins(request)
        return session_id
    raise Unauthenticated("send your API key: `Authorization: Bearer nxm_...`")


def remembered_callers() -> Remembered[str, Caller]:
    """Return the memory of callers by key that the routes of applications use."""
    return Remembered(_find_caller)


@before_body
async def authenticate_application(request: Request) -> Caller:
    """Return the caller as `authenticate` does, also while the database restarts.

    A revoked key is refused a second later.
    """
    callers: Remembered[str, Caller] = request.app.state.callers
    return _allowed(request, await callers.get(presented(request)))


@before_body
def authenticate_reader(request: Request) -> Caller | None:
    """Return the caller, or None where reading needs no key and none was sent.

    Raises Unauthenticated and Forbidden.
    """
    if "authorization" in request.headers or session_in_cookie(request):
        return authenticate(request)
    if not settings().anonymous_read or _needed(request) is not Scope.READ:
        return authenticate(request)
    if forwarded := forwarding_header(request.headers):
        raise Unauthenticated(
            "reading without a key is for direct requests; this one was forwarded, as its header"
            f" {forwarded} says: send your API key"
        )
    return None


def require(caller: Caller, scope: Scope) -> None:
    """Raise Forbidden if the caller's key does not have a scope."""
    if scope not in caller.scopes:
        held = table.listing(caller.scopes)
        raise Forbidden(f"this needs the scope {scope}; the key {caller.name!r} has {held}")


def forwarding_header(headers: Mapping[str, str]) -> str | None:
    """Return the name of a header by which a proxy tells that it forwards a request, if any."""
    names = (name.lower() for name in headers)
    return next(
        (n for n in names if n in FORWARDING_HEADERS or n.startswith(FORWARDING_PREFIX)), None
    )


def session_in_cookie(request: Request) -> str | None:
    """Return the session id that the browser sends for this server."""
    word = request.cookies.get(_cookie_name(request), "")
    return word if word.startswith(sessions.SESSION_PREFIX) else None


def set_session(request: Request, response: Response, session_id: str) -> None:
    """Let the browser keep a session id: not for scripts, nor for requests of other sites."""
    response.set_cookie(
        _cookie_name(request),
        session_id,
        max_age=int(sessions.SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def forget_session(request: Request, response: Response) -> None:
    """Let the browser forget its session id."""
    response.delete_cookie(_cookie_name(request), httponly=True, samesite="strict")


def refuse_other_origins(request: Request) -> None:
    """Raise Unauthenticated if a page of another server lets a browser send this request.

    SameSite ignores ports, so the browser sends the cookie from pages of other servers on this host
    too.
    """
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin", "")
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Unauthenticated("a cookie is accepted from our own pages only; send an API key")


Application = Annotated[Caller, Depends(authenticate_application)]
Writer = Annotated[Caller, Depends(authenticate)]
Reader = Annotated[Caller | None, Depends(authenticate_reader)]


def _find_caller(credential: str) -> Caller:
    with db.transaction() as session:
        return keys.find_caller(session, credential)


def _allowed(request: Request, caller: Caller) -> Caller:
    # A caller that is remembered may have expired meanwhile.
    keys.refuse_expired(caller)
    needed = _needed(request)
    if needed is not None:
        require(caller, needed)
    return caller


def _needed(request: Request) -> Scope | None:
    return table.needed(request.method, request.scope["route"].path)


def _cookie_name(request: Request) -> str:
    """Return a name with the port: browsers send a cookie to all ports of a host."""
    try:
        port = request.url.port
    except ValueError:
        port = None
    return f"nexusmix_session_{port or request.url.scheme}"
