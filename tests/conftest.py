"""Fixtures: a migrated PostgreSQL for the run, empty tables and a data folder for each test."""

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_socket import socket_allow_hosts
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import migrations
from registry import settings, tracing
from registry.blobs import blob_stores
from registry.blobs.blobs import LocalBlobs
from registry.database import db
from registry.database.postgres import EmbeddedPostgres

# The time of an example depends more on other work of the machine than on the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Background jobs of a shell ignore SIGINT, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPBACK = ["127.0.0.1", "::1", "localhost"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run modules with many slow tests first, so that all processes end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_runtest_setup() -> None:
    socket_allow_hosts(LOOPBACK, allow_unix_socket=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[Path]:
    """Yield a folder for the data of database servers, outside pytest's own folder.

    Pytest closes its folder to other accounts, and servers of root use another account.
    """
    with tempfile.TemporaryDirectory(prefix="nexusmix-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(servers: Path) -> Iterator[EmbeddedPostgres]:
    """Yield the server of the run, with the tables that the migrations create."""
    with EmbeddedPostgres(servers / "shared") as server:
        migrations.upgrade(server.url)
        engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield server


@pytest.fixture(scope="session", autouse=True)
def impatient_disk() -> Iterator[None]:
    """Skip all syncs to the disk, since no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set a new data folder, and forget values cached from the environment of other tests."""
    folder = tmp_path / "home"
    monkeypatch.setenv("NEXUSMIX_HOME", str(folder))
    monkeypatch.delenv("NEXUSMIX_DATABASE_URL", raising=False)
    # Most workers of tests run one small job, and all families have the same few seeds.
    monkeypatch.setenv("NEXUSMIX_PRELOAD", "false")
    monkeypatch.setenv("NEXUSMIX_SERVE_SEEDS", "false")
    monkeypatch.setenv("NEXUSMIX_MEASURE_EXPERTS", "false")
    _forget()
    yield folder
    _forget()


@pytest.fixture
def database(
    home: Path, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Set the address of a database with empty tables in the environment, and return it."""
    monkeypatch.setenv("NEXUSMIX_DATABASE_URL", postgres.url)
    _forget()
    _empty_tables()
    yield postgres.url
    db.close()


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    """Yield a transaction that is committed at the end of the test."""
    with db.transaction() as session:
        yield session


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Switch traces on; the spans that have ended are in the exporter."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(tracing, "_is_on", True)
    yield exporter
    provider.shutdown()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Start a Ray cluster for a module, connect to it, and name it in the settings."""
    import ray

    from engine.launch.ray_launcher import connect
    from tests import ray_cluster

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("NEXUSMIX_LAUNCHER", "ray")
        patch.setenv("NEXUSMIX_RAY_ADDRESS", ray_cluster.ADDRESS)
        # A token that an ended cluster left in the home of this account would be asked for.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        try:
            stack.enter_context(ray_cluster.private_network())
        except ray_cluster.NetworkRefused as error:
            message = (
                f"Ray would be open to everyone, in a network of its own it could not: {error}"
            )
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        stack.enter_context(ray_cluster.cluster(num_cpus=4))
        _forget()
        connect()
        # If it stayed connected, Ray would end this process when the cluster stops.
        stack.callback(ray.shutdown)
        yield


def _empty_tables() -> None:
    # Tables are truncated, since other processes of a test read only committed rows.
    with db.transaction() as session:
        names = session.scalars(
            text(
                "SELECT tablename FROM pg_tables"
                " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            )
        ).all()
        session.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY"))


def _forget() -> None:
    settings.settings.cache_clear()
    blob_stores.store.cache_clear()
    db.close()
