"""Reaches the database of an installation, whether its service runs or not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

import migrations
from registry.database import db, postgres
from registry.database.postgres import EmbeddedPostgres
from registry.errors import Conflict, NotFound, Unavailable
from registry.settings import settings
from service import home

VARIABLE = "NEXUSMIX_DATABASE_URL"


@contextmanager
def opened(*, any_schema: bool = False) -> Iterator[str]:
    """Yield the address of the database, which `registry.database.db` uses inside the block.

    That of the settings, the embedded one of the running service, or the embedded one started for
    the block. Call this from the main thread. Raises NotFound where there is no installation yet,
    Unavailable, and Conflict if the service uses another database, or if the tables are of another
    version, unless `any_schema` is set.
    """
    with _address() as url, _configured(url):
        if not any_schema:
            _check_schema()
        yield url


@contextmanager
def fresh() -> Iterator[str]:
    """Yield the address of the database to restore into, as `opened` does.

    That of the settings, or a new embedded one, which is started for the block. The caller holds
    the data folder.
    """
    own = settings().database_url
    if own is not None:
        yield own
        return
    with EmbeddedPostgres(settings().postgres_path) as server, _configured(server.url):
        yield server.url


def schema_version() -> str | None:
    """Return the revision of the tables in the database of the settings; None without tables.

    Raises Unavailable.
    """
    try:
        with db.engine().connect() as connection:
            revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return None if revision is None else str(revision)
    except ProgrammingError:
        return None
    except OperationalError as error:
        raise Unavailable(f"the database does not answer: {error.orig}") from error


@contextmanager
def _address() -> Iterator[str]:
    own = settings().database_url
    if own is not None:
        yield own
        return
    data = settings().postgres_path
    if running := postgres.running_url(data):
        yield running
        return
    if (holder := home.holder(settings().home)) is not None:
        raise Conflict(
            f"process {holder.pid} holds {settings().home}, and no database of the folder runs: set"
            f" {VARIABLE} as that process has it, or wait until it has started"
        )
    if not (data / "PG_VERSION").exists():
        raise NotFound(f"there is no installation in {settings().home}")
    # Whoever frees a disk must not be refused because it is full.
    with (
        home.held(settings().home, address="no address: house-keeping", min_free_bytes=0),
        EmbeddedPostgres(data) as server,
    ):
        yield server.url


@contextmanager
def _configured(url: str) -> Iterator[None]:
    """Let this process use the database at `url`."""
    if settings().database_url == url:
        yield
        return
    os.environ[VARIABLE] = url
    settings.cache_clear()
    try:
        yield
    finally:
        db.close()
        del os.environ[VARIABLE]
        settings.cache_clear()


def _check_schema() -> None:
    found, expected = schema_version(), migrations.newest()
    if found != expected:
        raise Conflict(
            f"the tables are of version {found}, this program needs {expected}:"
            " `nexusmix up` brings older ones up to date"
        )
