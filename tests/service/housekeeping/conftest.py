"""The store, a published mix, an installation to save, and where to."""

from pathlib import Path

import pytest

from assembler.tables import MixVersion
from registry.blobs import blob_stores
from registry.blobs.blobs import LocalBlobs
from registry.database import db
from registry.settings import settings
from service import keys
from tests.service.housekeeping import stored_mix


@pytest.fixture
def store(database: str) -> LocalBlobs:
    store = blob_stores.store()
    assert isinstance(store, LocalBlobs)
    return store


@pytest.fixture
def mix(store: LocalBlobs) -> MixVersion:
    """A published mix."""
    with db.transaction() as session:
        return stored_mix.add(session, store)


@pytest.fixture
def installed(mix: MixVersion) -> None:
    """An installation with a published mix and a key."""
    with db.transaction() as session:
        keys.installation_key(session, path=settings().key_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(servers: Path, tmp_path: Path) -> Path:
    """An empty data folder for the restored installation."""
    return servers / f"restored-{tmp_path.name}"
