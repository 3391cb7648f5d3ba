"""The database: base class of all tables, constraint names, connection pool, transactions."""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import DateTime, Engine, Enum, MetaData, create_engine, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry

from registry.errors import Unavailable
from registry.settings import settings

# Connections of one process, and how many more while requests are many. A request holds one.
POOL_SIZE = 5
MAX_OVERFLOW = 10
# What a statement raises when the server is away, restarts, or does not answer in time. PoolTimeout
# means that all connections of the pool stayed in use.
OUTAGES = (OperationalError, InterfaceError, InternalError, PoolTimeout)

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

    It tests a connection before use and waits for a server that restarts, so that a restart causes
    no error in a request that begins. Every wait has a deadline of the settings. Raises Unavailable
    if the settings name no database. `nexusmix up` starts the embedded one and passes its address
    to the processes that it starts.
    """
    # Clients load the tables' states without a driver of PostgreSQL.
    from registry.database import connections

    url = settings().database_url
    if url is None:
        raise Unavailable("no database: start one with `nexusmix up`, or set NEXUSMIX_DATABASE_URL")
    made = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        pool_timeout=settings().database_pool_seconds,
        # Errors are logged, and values can be hashes of keys or texts of users.
        hide_parameters=True,
    )
    event.listen(made, "do_connect", connections.connect)
    return made


def close() -> None:
    """Close the connections of this process; those in use are closed when they come back.

    The next transaction connects anew, by the settings of that time.
    """
    if engine.cache_info().currsize == 0:
        return
    made = engine()
    engine.cache_clear()
    # A pool that was disposed of keeps what comes back later, and nobody would close it.
    event.listen(made.pool, "checkin", _close)
    made.dispose()


def _close(connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    if connection is not None:
        connection.close()


@contextmanager
def transaction(*, maintenance: bool = False) -> Iterator[Session]:
    """Open a transaction: commit when the block ends, roll back if it raises.

    Statements of `maintenance` may take as long as they need.
    """
    with Session(engine(), expire_on_commit=False) as session:
        if maintenance:
            from registry.database import connections  # deferred as in `engine`

            driver = session.connection().connection.driver_connection
            assert isinstance(driver, connections.BoundedConnection)
            with driver.unbounded():
                session.execute(text("SET LOCAL statement_timeout = 0"))
                session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                yield session
                session.commit()
            return
        yield session
        session.commit()


def release(session: Session) -> None:
    """Commit, and give the connection back while something slow is done. Rows keep their values.

    The next statement of the session opens another transaction.
    """
    session.commit()
