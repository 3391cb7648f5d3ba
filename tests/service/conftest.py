"""The app with an empty database: in this process, or served on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.database import db
from registry.settings import settings
from service import home, keys
from service.app import create_app
from service.web.connections import BoundedProtocol
from tests.service.web import open_transactions

ADDRESS = "http://127.0.0.1"


@pytest.fixture
def key(database: str) -> str:
    with db.transaction() as session:
        return keys.create_key(session, name="tests")


@pytest.fixture
def store(database: str) -> BlobStore:
    """The store that the app uses."""
    return blob_stores.store()


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """One app for all tests. It keeps no state between tests, and its routes take long to make."""
    return create_app()


@pytest.fixture
def anonymous(app: FastAPI, database: str) -> Iterator[TestClient]:
    with TestClient(app, base_url=ADDRESS) as client, open_transactions.forbidden_with_bytes():
        yield client


@pytest.fixture
def client(anonymous: TestClient, key: str) -> TestClient:
    anonymous.headers["Authorization"] = f"Bearer {key}"
    return anonymous


@pytest.fixture
def address(app: FastAPI, database: str) -> Iterator[str]:
    with serving(app) as address:
        yield address


@pytest.fixture
def installation(address: str, key: str) -> Iterator[None]:
    """The data folder of a running service, which the command line finds."""
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        yield


@contextmanager
def serving(app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve `app` from a thread; yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=BoundedProtocol,
            ws="none",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield home.address_of(host, port)
    finally:
        server.should_exit = True
        thread.join()
