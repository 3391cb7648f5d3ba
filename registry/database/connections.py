"""Connections to PostgreSQL on which every wait ends: connect, statement, lock, idle transaction.

The server ends what takes too long while it runs. A server that is suspended, or behind a network
that loses packets, ends nothing: then the connection gives up by itself.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from sqlalchemy import Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from registry.settings import settings

# How much longer than the server's own limit the connection waits for an answer.
MARGIN_SECONDS = 5.0
POLL_SECONDS = 0.1
# What a server says that another try cannot change.
FINAL = (
    "authentication",
    "password",
    "does not exist",
    "permission denied",
    "no pg_hba.conf entry",
)
# A peer that is gone is noticed by the kernel. Unix sockets ignore these.
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


R = TypeVar("R")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that raises OperationalError when the server does not answer in time."""

    is_unbounded = False

    def wait(
        self, gen: PQGen[R], interval: float = POLL_SECONDS, timeout: float | None = None
    ) -> R:
        """Wait for the server as psycopg does, but not longer than a statement may take."""
        if timeout is not None or self.is_unbounded:
            # A timeout of its own is no failure: it ends the waiting for a notification.
            return super().wait(gen, interval, timeout)
        timeout = settings().database_statement_seconds + MARGIN_SECONDS
        try:
            return super().wait(gen, interval, timeout)
        except errors._WaitTimeout as error:
            # What the server will still send is unknown, so the connection is of no more use.
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the database has not answered for {timeout:.0f} seconds"
            ) from error

    @contextmanager
    def unbounded(self) -> Iterator[None]:
        """Let statements take as long as they need until the block ends."""
        self.is_unbounded = True
        try:
            yield
        finally:
            self.is_unbounded = False


def connect(
    dialect: Dialect, entry: ConnectionPoolEntry, arguments: list[Any], options: dict[str, Any]
) -> BoundedConnection:
    """Connect for SQLAlchemy's pool, and wait for a server that restarts.

    Raises psycopg.OperationalError when the server is away for too long, or refuses.
    """
    patience = settings().database_connect_seconds
    give_up_at = time.monotonic() + patience
    while True:
        try:
            return BoundedConnection.connect(
                *arguments,
                **{"connect_timeout": patience, "options": _limits(), **KEEPALIVE, **options},
            )
        except psycopg.OperationalError as error:
            if time.monotonic() >= give_up_at or any(word in str(error) for word in FINAL):
                raise
            time.sleep(POLL_SECONDS)


def _limits() -> str:
    """Return the limits as libpq's option `options`, in milliseconds."""
    limits = {
        "statement_timeout": settings().database_statement_seconds,
        "lock_timeout": settings().database_lock_seconds,
        "idle_in_transaction_session_timeout": settings().database_idle_seconds,
    }
    return " ".join(f"-c {name}={round(seconds * 1000)}" for name, seconds in limits.items())
