"""The database: base class of all tables, constraint names, connection pool, transactions."""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import DateTime, Engine, Enum, MetaData, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session

from registry.errors import Unavailable
from registry.settings import settings

CONSTRAINT_NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base class of all tables."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map: ClassVar = {
        dict[str, Any]: JSONB,
        datetime: DateTime(timezone=True),
        # States are text, since PostgreSQL cannot remove a value from an enum type.
        enum.Enum: Enum(enum.Enum, native_enum=False, length=32),
    }


@cache
def engine() -> Engine:
    """Return the connection pool of this process.

    It tests a connection before use, so that a restart of the server causes no error. Raises
    Unavailable if the settings name no database. `nexusmix up` starts the embedded one and passes
    its address to the processes that it starts.
    """
    url = settings().database_url
    if url is None:
        raise Unavailable("no database: start one with `nexusmix up`, or set NEXUSMIX_DATABASE_URL")
    return create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=10)


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a transaction: commit when the block ends, roll back if it raises."""
    with Session(engine(), expire_on_commit=False) as session:
        yield session
        session.commit()
