"""API keys, sessions of browsers, repeatable answers, and what house-keeping did."""

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ForeignKey, Identity, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from registry.database.db import Base


class ApiKey(Base):
    """An API key. Only its SHA-256 is stored; `prefix` lets people tell keys apart."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    # Values of `service.scopes.Scope`.
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    # At most a minute older than the last use, see `service.keys.find_caller`.
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class BrowserSession(Base):
    """Somebody who is signed in with a key. The browser holds what hashes to `sha256`."""

    __tablename__ = "browser_sessions"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    api_key_id: Mapped[int] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class SignInLink(Base):
    """A link that begins one session for a key. Its row is deleted when it is used."""

    __tablename__ = "sign_in_links"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    api_key_id: Mapped[int] = mapped_column(ForeignKey("api_keys.id"))
    expires_at: Mapped[datetime]


class IdempotentRequest(Base):
    """The answer to a request with an `Idempotency-Key`, for when the request is repeated."""

    __tablename__ = "idempotent_requests"
    __table_args__ = (UniqueConstraint("api_key_id", "path", "key"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    api_key_id: Mapped[int]
    path: Mapped[str]
    key: Mapped[str]
    body_digest: Mapped[str]
    status: Mapped[int]
    response: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HousekeepingRun(Base):
    """What house-keeping did; `result` depends on its kind, `gc` or `scrub`."""

    __tablename__ = "housekeeping_runs"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]
    result: Mapped[dict[str, Any]]


class BlobFault(Base):
    """A blob that was found missing or damaged, until it is found whole."""

    __tablename__ = "blob_faults"

    digest: Mapped[str] = mapped_column(primary_key=True)
    fault: Mapped[str]
    needed_by: Mapped[dict[str, Any]]
    found_at: Mapped[datetime] = mapped_column(server_default=func.now())
