"""Migrations create the tables of the code, and can be reverted.

Covers: registry.database.tables, engine.serving.tables, service.tables.
"""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.util.exc import CommandError
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    NullPool,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import make_url

import migrations
from registry.database.postgres import EmbeddedPostgres
from service.scopes import ALL_SCOPES

NAME = "migrated"


@pytest.fixture
def empty(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """Create an empty database beside that of the other tests."""
    admin = create_engine(postgres.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {NAME}"))
    url = make_url(postgres.url).set(database=NAME)
    yield create_engine(url, poolclass=NullPool)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {NAME} WITH (FORCE)"))


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_all_migrations_can_be_reverted(empty: Engine) -> None:
    migrations.upgrade(url_of(empty))
    assert "expert_versions" in inspect(empty).get_table_names()
    migrations.downgrade(url_of(empty), revision="base")
    assert inspect(empty).get_table_names() == ["alembic_version"]
    migrations.upgrade(url_of(empty))


def test_rows_keep_their_values_when_columns_are_renamed(empty: Engine) -> None:
    migrations.upgrade(url_of(empty), revision="0006_compression")
    with empty.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO families (name, description, licence, state, seed_digest)"
                " VALUES ('tiny', 'a family', 'MIT', 'READY', 'digest')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO artifacts"
                " (manifest_digest, recipe, recipe_digest, gate_report_digest, lock_digest)"
                " VALUES ('m', '{}', 'r', 'g', 'made')"
            )
        )
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT license FROM families")) == "MIT"
        assert connection.scalar(text("SELECT provenance_digest FROM artifacts")) == "made"


def test_keys_that_exist_may_do_everything(empty: Engine) -> None:
    migrations.upgrade(url_of(empty), revision="0008_index_of_states")
    with empty.begin() as connection:
        connection.execute(
            text("INSERT INTO api_keys (name, prefix, sha256) VALUES ('me', 'nxm_a', 'd')")
        )
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        scopes = connection.scalar(text("SELECT scopes FROM api_keys"))
        default = connection.scalar(
            text(
                "SELECT column_default FROM information_schema.columns"
                " WHERE table_name = 'api_keys' AND column_name = 'scopes'"
            )
        )
    assert set(scopes) == ALL_SCOPES
    assert default is None, "a new key must name its scopes"


def test_registrations_keep_their_rows_and_get_states(empty: Engine) -> None:
    migrations.upgrade(url_of(empty), revision="0011_leases")
    with empty.begin() as connection:
        for statement in (
            "INSERT INTO families (name, description, license, state, seed_digest)"
            " VALUES ('tiny', '', 'MIT', 'READY', 'seed')",
            "INSERT INTO experts (name, family_id, description, license)"
            " VALUES ('law', 1, 'statutes', 'CC0-1.0')",
            "INSERT INTO expert_versions"
            " (expert_id, number, state, manifest_digest, documents_digest) VALUES"
            " (1, 1, 'READY', 'm', 'd'), (1, 2, 'READY', 'm', 'd'), (1, 3, 'UPLOADING', 'm', 'd')",
            "INSERT INTO domain_embeddings"
            " (expert_version_id, embedder, embedder_digest, num_documents, vector)"
            " VALUES (1, 'e', 'e', 1, '[1]')",
        ):
            connection.execute(text(statement))
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        query = "SELECT state, license, description, num_retries FROM expert_versions ORDER BY id"
        about = ("CC0-1.0", "statutes", 0)
        assert [tuple(row) for row in connection.execute(text(query))] == [
            ("READY", *about),
            ("EMBEDDING", *about),
            ("UPLOADING", *about),
        ]
    migrations.downgrade(url_of(empty), revision="0011_leases")
    with empty.connect() as connection:
        states = connection.scalars(text("SELECT state FROM expert_versions ORDER BY id")).all()
        assert states == ["READY", "READY", "UPLOADING"]


def test_embeddings_from_before_moments_have_none(empty: Engine) -> None:
    migrations.upgrade(url_of(empty), revision="0016_private_documents")
    with empty.begin() as connection:
        for statement in (
            "INSERT INTO families (name, description, license, state, seed_digest)"
            " VALUES ('tiny', '', 'MIT', 'READY', 'seed')",
            "INSERT INTO experts (name, family_id, description, license)"
            " VALUES ('law', 1, '', 'MIT')",
            "INSERT INTO expert_versions (expert_id, number, state, license, description,"
            " manifest_digest, documents_digest) VALUES (1, 1, 'READY', 'MIT', '', 'm', 'd')",
            "INSERT INTO domain_embeddings (expert_version_id, embedder, embedder_digest,"
            " num_documents, vector, states_digest) VALUES (1, 'e', 'e', 1, '[1]', 'states')",
        ):
            connection.execute(text(statement))
    migrations.upgrade(url_of(empty))
    with empty.begin() as connection:
        query = "SELECT states_digest, moments_digest FROM domain_embeddings"
        assert tuple(connection.execute(text(query)).one()) == ("states", None)
        connection.execute(text("UPDATE domain_embeddings SET moments_digest = 'm'"))
    migrations.downgrade(url_of(empty), revision="0016_private_documents")
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT states_digest FROM domain_embeddings")) == "states"


def test_rows_of_version_8_are_kept(empty: Engine) -> None:
    """One row of each table, with a value in every column, comes through the upgrade."""
    migrations.upgrade(url_of(empty), revision="0008_index_of_states")
    tables = MetaData()
    with warnings.catch_warnings():
        # The type of vectors is unknown here; they are written and read as text.
        warnings.simplefilter("ignore")
        tables.reflect(empty)
    names = [table.name for table in tables.sorted_tables if table.name != "alembic_version"]
    assert len(names) > 10
    before = {}
    with empty.begin() as connection:
        for name in names:
            values = {column.name: value_of(column) for column in tables.tables[name].columns}
            columns = ", ".join(values)
            places = ", ".join(f":{column}" for column in values)
            connection.execute(
                text(f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places})"),
                values,
            )
            before[name] = connection.execute(text(f"SELECT * FROM {name}")).mappings().one()
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        for name, row in before.items():
            after = connection.execute(text(f"SELECT * FROM {name}")).mappings().one()
            assert {column: after[column] for column in row} == dict(row), name
    command.check(migrations.config(url_of(empty)))


# Texts that a column may hold: a state, or the name of a thing.
STATES = {
    "families": "READY",
    "expert_versions": "READY",
    "projections": "FAILED",
    "mix_versions": "SUCCEEDED",
    "deployments": "STOPPED",
}


def value_of(column: Column[Any]) -> object:
    """Return a value for a column; all keys are 1."""
    if column.name == "state":
        return STATES[column.table.name]
    kind = column.type
    if isinstance(kind, Integer):
        return 1
    if isinstance(kind, JSONB):
        return '{"kept": true}'
    if isinstance(kind, DateTime):
        return datetime(2026, 11, 30, tzinfo=UTC)
    if isinstance(kind, Boolean):
        return True
    return "[1,2,3]" if column.name == "vector" else f"some-{column.name}"


def test_the_tables_equal_those_of_the_code(empty: Engine) -> None:
    migrations.upgrade(url_of(empty))
    command.check(migrations.config(url_of(empty)))


def test_a_difference_to_the_code_is_found(empty: Engine) -> None:
    migrations.upgrade(url_of(empty))
    with empty.begin() as connection:
        connection.execute(text("ALTER TABLE experts DROP COLUMN license"))
    with pytest.raises(CommandError, match="New upgrade operations detected"):
        command.check(migrations.config(url_of(empty)))


def test_tables_of_the_job_store_are_ignored(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE SCHEMA dbos"))
        connection.execute(text("CREATE TABLE dbos.workflow_status (id int)"))
    migrations.upgrade(url_of(empty))
    command.check(migrations.config(url_of(empty)))
    migrations.downgrade(url_of(empty), revision="base")
    assert inspect(empty).get_table_names(schema="dbos") == ["workflow_status"]


def test_a_migration_gives_up_if_a_table_is_locked(
    empty: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations.upgrade(url_of(empty))
    with empty.connect() as other:
        other.execute(text("LOCK TABLE experts IN ACCESS SHARE MODE"))
        with pytest.raises(Exception, match="lock timeout"):
            migrations.downgrade(url_of(empty), revision="base")
    assert "experts" in inspect(empty).get_table_names(), "all or nothing"
