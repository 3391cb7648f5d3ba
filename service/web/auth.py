"""API keys: 256 random bits, kept as their SHA-256, sent as a bearer token or in a cookie.

A slow password hash would buy nothing here: there is nothing to guess in 256 random bits.
"""

import hashlib
import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry import db
from registry.errors import Unauthenticated
from registry.settings import settings
from service.tables import ApiKey

KEY_PREFIX = "nxm_"
COOKIE = "nexusmix_key"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """Who asks: the row of their key."""

    key_id: int
    name: str


def create_key(session: Session, *, name: str) -> str:
    """Store a new key and return it; it can be read this one time only."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    _store(session, key, name=name)
    return key


def installation_key(session: Session, *, path: Path) -> str:
    """The key that this installation generated for its owner; made at the first call.

    The file is readable by its owner only. A database that was replaced learns the key again.
    """
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key + "\n")
    _store(session, key, name="installation")
    return key


def caller_of(session: Session, key: str) -> Caller:
    """Raises Unauthenticated when the key is unknown or revoked."""
    row = session.scalar(
        select(ApiKey).where(ApiKey.sha256 == _sha256(key), ApiKey.revoked_at.is_(None))
    )
    if row is None:
        raise Unauthenticated("this API key is not known here, or it was revoked")
    return Caller(row.id, row.name)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authenticate(request: Request) -> Caller:
    """The caller behind a bearer token, else behind the cookie of our own pages.

    Raises Unauthenticated.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        key = token.strip()
    elif cookie := request.cookies.get(COOKIE):
        _refuse_other_origins(request)
        key = cookie
    else:
        raise Unauthenticated("send your API key: `Authorization: Bearer nxm_...`")
    with db.transaction() as session:
        return caller_of(session, key)


def authenticate_reader(request: Request) -> Caller | None:
    """Reading is open on a server that only its own machine can reach."""
    return None if is_loopback(settings().host) else authenticate(request)


Writer = Annotated[Caller, Depends(authenticate)]
Reader = Annotated[Caller | None, Depends(authenticate_reader)]


def _refuse_other_origins(request: Request) -> None:
    # SameSite ignores ports: a page of another server on this host would be sent the cookie too.
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin", "")
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Unauthenticated("a cookie counts for requests from our own pages only; send a key")


def _store(session: Session, key: str, *, name: str) -> None:
    row = {"name": name, "prefix": key[: len(KEY_PREFIX) + 6], "sha256": _sha256(key)}
    session.execute(insert(ApiKey).values(row).on_conflict_do_nothing())


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
