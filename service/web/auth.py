"""Finds out who sends a request: by an API key in a bearer token, or in the cookie of our pages."""

import ipaddress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.database import db
from registry.errors import Unauthenticated
from registry.settings import settings
from service.keys import key_digest
from service.tables import ApiKey
from service.web.remembered import Remembered

COOKIE = "nexusmix_key"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """The row of the API key that a request was sent with."""

    key_id: int
    name: str


def caller_of(session: Session, key: str) -> Caller:
    """Return whose key this is. Raises Unauthenticated when the key is unknown or revoked."""
    row = session.scalar(
        select(ApiKey).where(ApiKey.sha256 == key_digest(key), ApiKey.revoked_at.is_(None))
    )
    if row is None:
        raise Unauthenticated("this API key is not known here, or it was revoked")
    return Caller(row.id, row.name)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authenticate(request: Request) -> Caller:
    """Return the caller by the bearer token, or else by the cookie of our pages.

    Raises Unauthenticated.
    """
    return _find_caller(presented_key(request))


def presented_key(request: Request) -> str:
    """Return the key in the bearer token, or else in the cookie of our pages.

    Raises Unauthenticated.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    if cookie := request.cookies.get(COOKIE):
        _refuse_other_origins(request)
        return cookie
    raise Unauthenticated("send your API key: `Authorization: Bearer nxm_...`")


def remembered_callers() -> Remembered[str, Caller]:
    """Return the memory of callers by key that the routes of applications use."""
    return Remembered(_find_caller)


async def authenticate_application(request: Request) -> Caller:
    """Return the caller as `authenticate` does, also while the database restarts.

    A revoked key is refused a second later.
    """
    callers: Remembered[str, Caller] = request.app.state.callers
    return await callers.get(presented_key(request))


def authenticate_reader(request: Request) -> Caller | None:
    """Return the caller, or None where reading needs no key.

    Reading is open on a server that only this machine can reach. Raises Unauthenticated.
    """
    return None if is_loopback(settings().host) else authenticate(request)


Application = Annotated[Caller, Depends(authenticate_application)]
Writer = Annotated[Caller, Depends(authenticate)]
Reader = Annotated[Caller | None, Depends(authenticate_reader)]


def _find_caller(key: str) -> Caller:
    with db.transaction() as session:
        return caller_of(session, key)


def _refuse_other_origins(request: Request) -> None:
    # SameSite ignores ports, so the browser sends the cookie from pages of other servers on this
    # host too.
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin", "")
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Unauthenticated("a cookie is accepted from our own pages only; send an API key")
