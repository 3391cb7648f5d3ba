"""API keys, and the answers to requests that may be repeated."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from registry.database.db import Base


class ApiKey(Base):
    """An API key. Only its SHA-256 is stored; `prefix` lets people tell keys apart."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


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
