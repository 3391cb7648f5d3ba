"""The database of an installation is reached whether the service runs or not."""

from pathlib import Path

import pytest
from sqlalchemy import text

import migrations
from registry.database import db
from registry.database.postgres import EmbeddedPostgres
from registry.errors import Conflict, NotFound
from registry.settings import settings
from service import home as homes
from service.housekeeping import installation


@pytest.fixture
def embedded(servers: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedPostgres:
    """Set a data folder with a database of its own that does not run."""
    folder = servers / "embedded"
    monkeypatch.setenv("NEXUSMIX_HOME", str(folder))
    settings.cache_clear()
    with EmbeddedPostgres(settings().postgres_path) as server:
        migrations.upgrade(server.url)
    return server


def num_families() -> int:
    with db.transaction() as session:
        return int(session.scalar(text("SELECT count(*) FROM families")) or 0)


def test_the_database_of_the_settings_is_used(database: str) -> None:
    with installation.opened() as url:
        assert url == database
        assert num_families() == 0


def test_a_running_server_is_found_and_a_stopped_one_is_started(
    embedded: EmbeddedPostgres,
) -> None:
    with embedded, installation.opened() as url:
        assert url == embedded.url
        assert num_families() == 0
    with installation.opened():
        assert num_families() == 0
        holder = homes.holder(settings().home)
        assert holder is not None, "no service may start meanwhile"
    assert settings().database_url is None


def test_a_folder_without_an_installation_is_refused(home: Path) -> None:
    with pytest.raises(NotFound, match="no installation"), installation.opened():
        pass


def test_a_service_with_another_database_is_named(embedded: EmbeddedPostgres) -> None:
    held = homes.held(settings().home, address="http://127.0.0.1:1", min_free_bytes=0)
    expected = "no database of the folder runs: set NEXUSMIX_DATABASE_URL"
    with held, pytest.raises(Conflict, match=expected), installation.opened():
        pass


def test_tables_of_another_version_are_refused(database: str) -> None:
    with db.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001_first'"))
    try:
        with pytest.raises(Conflict, match=r"0001_first.* needs 0"), installation.opened():
            pass
        with installation.opened(any_schema=True):
            assert installation.schema_version() == "0001_first"
    finally:
        with db.transaction() as session:
            session.execute(
                text("UPDATE alembic_version SET version_num = :newest"),
                {"newest": migrations.newest()},
            )
