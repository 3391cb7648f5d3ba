"""An installation to save, and where to."""

from pathlib import Path

import pytest

from registry.blobs import blob_stores
from registry.blobs.blobs import LocalBlobs
from registry.database import db
from registry.settings import settings
from service import keys
from tests.service.housekeeping import stored_mix


@pytest.fixture
def store(database: str) -> LocalBlobs:
    """The store of an installation with a published mix and a key."""
    store = blob_stores.store()
    assert isinstance(store, LocalBlobs)
    with db.transaction() as session:
        stored_mix.add(session, store)
        keys.installation_key(session, path=settings().key_path)
    return store


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(servers: Path, tmp_path: Path) -> Path:
    """An empty data folder for the restored installation."""
    return servers / f"restored-{tmp_path.name}"
