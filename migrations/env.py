"""The script that Alembic runs: migrate the tables of all four packages.

DBOS has its tables in a schema of its own, which Alembic ignores.
"""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from pgvector.sqlalchemy import Vector
from sqlalchemy import NullPool, create_engine, text

import assembler.tables
import engine.serving.tables
import registry.database.tables
import service.tables
from registry.database.db import Base
from registry.settings import settings

# The imports of these modules fill the metadata.
TABLES = (registry.database.tables, engine.serving.tables, assembler.tables, service.tables)

# An arbitrary number, equal in every process that migrates.
MIGRATION_LOCK = 20_261_123
# Other queries wait behind a migration that waits for a lock, so it gives up early.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "120s"


def run() -> None:
    """Run the requested revisions in one transaction; only one process migrates at a time."""
    url = context.config.attributes.get("url") or settings().database_url
    if url is None:
        raise RuntimeError("set NEXUSMIX_DATABASE_URL to the database to migrate")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_item=_render_vector
        )
        with context.begin_transaction():
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))
            context.run_migrations()


def _render_vector(
    type_: str, item: object, autogenerating: AutogenContext
) -> str | Literal[False]:
    """Return the source code of a vector column for a new revision; False lets Alembic do it."""
    if type_ != "type" or not isinstance(item, Vector):
        return False
    autogenerating.imports.add("from pgvector.sqlalchemy import Vector")
    return "Vector()" if item.dim is None else f"Vector({item.dim})"


if context.is_offline_mode():
    raise RuntimeError("migrations run on a database only; there is no SQL script mode")
run()
