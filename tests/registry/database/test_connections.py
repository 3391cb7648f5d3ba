"""Every wait for the database ends, whoever is to blame."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from registry import settings
from registry.database import connections, db
from registry.database.postgres import EmbeddedPostgres


def limit(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Set limits of the database, such as `statement=0.1`, and connect anew."""
    db.close()
    for name, value in seconds.items():
        monkeypatch.setenv(f"NEXUSMIX_DATABASE_{name.upper()}_SECONDS", str(value))
    settings.settings.cache_clear()


@pytest.fixture
def own_server(servers: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPostgres]:
    """A database server of this test, which it may end."""
    with EmbeddedPostgres(servers / "connections") as server:
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", server.url)
        settings.settings.cache_clear()
        db.close()
        yield server
        db.close()


def sleep(seconds: float, **options: bool) -> None:
    with db.transaction(**options) as session:
        session.execute(text(f"SELECT pg_sleep({seconds})"))


def test_a_statement_that_takes_too_long_ends(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, statement=0.05)
    with pytest.raises(OperationalError, match="statement timeout"):
        sleep(60)


def test_maintenance_may_take_long(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, statement=0.05, idle=0.05)
    monkeypatch.setattr(connections, "MARGIN_SECONDS", 0.05)
    sleep(0.3, maintenance=True)
    with pytest.raises(OperationalError):
        sleep(60)


def test_a_lock_is_not_waited_for_for_ever(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, lock=0.05)
    with db.transaction() as holder:
        holder.execute(text("LOCK TABLE families"))
        with pytest.raises(OperationalError, match="lock timeout"), db.transaction() as other:
            other.execute(text("LOCK TABLE families"))


def test_a_server_that_is_suspended_is_given_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, statement=0.1)
    monkeypatch.setattr(connections, "MARGIN_SECONDS", 0.1)
    with db.transaction() as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    os.kill(pid, signal.SIGSTOP)
    try:
        # The pool tests the connection, finds it silent, and opens another one.
        sleep(0)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_statement_of_a_suspended_server_fails(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, statement=0.1)
    monkeypatch.setattr(connections, "MARGIN_SECONDS", 0.1)
    pids: list[int] = []

    def use() -> None:
        with db.transaction() as session:
            pids.append(session.execute(text("SELECT pg_backend_pid()")).scalar_one())
            os.kill(pids[0], signal.SIGSTOP)
            session.execute(text("SELECT 1"))

    try:
        with pytest.raises(OperationalError, match="has not answered for"):
            use()
    finally:
        os.kill(pids[0], signal.SIGCONT)


def test_a_pool_that_is_in_use_is_not_waited_for_for_ever(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, pool=0.05)
    held = [db.engine().connect() for _ in range(15)]
    try:
        with pytest.raises(PoolTimeout):
            sleep(0)
    finally:
        for connection in held:
            connection.close()


def test_a_server_that_restarts_is_waited_for(
    own_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, connect=60)
    sleep(0)
    own_server.stop()
    failures: list[Exception] = []

    def use() -> None:
        try:
            sleep(0)
        except Exception as error:
            failures.append(error)

    request = threading.Thread(target=use)
    request.start()
    own_server.start()
    request.join()
    assert failures == []


def test_a_refusal_is_final(own_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, connect=600)
    monkeypatch.setenv("NEXUSMIX_DATABASE_URL", own_server.url.replace("/nexusmix?", "/nothing?"))
    settings.settings.cache_clear()
    db.close()
    with pytest.raises(OperationalError, match='database "nothing" does not exist'):
        sleep(0)


def test_waiting_in_vain_for_a_notification_is_no_failure(database: str) -> None:
    address = make_url(database).set(drivername="postgresql")
    url = address.render_as_string(hide_password=False)
    with connections.BoundedConnection.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN nobody")
        assert list(connection.notifies(timeout=0.01, stop_after=1)) == []
        connection.execute("SELECT 1")


def test_a_connection_in_use_is_closed_when_it_comes_back(database: str) -> None:
    with db.transaction() as session:
        driver = session.connection().connection.driver_connection
        assert isinstance(driver, connections.BoundedConnection)
        db.close()
        session.execute(text("SELECT 1"))
    assert driver.closed
