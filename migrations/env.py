"""What Alembic runs: the tables of all four packages, on the database of the settings.

DBOS keeps its own tables in a schema of its own, which Alembic does not look at.
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

# Importing these modules is what fills the metadata.
TABLES = (registry.database.tables, engine.serving.tables, assembler.tables, service.tables)

# Any number, as long as it is the same in every process that migrates.
MIGRATION_LOCK = 20_261_123
# A migration that waits for a lock makes everybody behind it wait too: give up early, try later.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "120s"


def run() -> None:
    """Apply the asked-for revisions in one transaction, one migrating process at a time."""
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
    """How a vector column is written down in a new revision; False leaves it to Alembic."""
    if type_ != "type" or not isinstance(item, Vector):
        return False
    autogenerating.imports.add("from pgvector.sqlalchemy import Vector")
    return "Vector()" if item.dim is None else f"Vector({item.dim})"


if context.is_offline_mode():
    raise RuntimeError("migrations run on a database only; there is no SQL script mode")
run()
