"""Saves and restores installations, and checks all that they have."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from assembler.mixes import mixes
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.attestations import Attestation
from registry.database import db
from registry.database.db import Base
from registry.database.tables import Artifact
from registry.settings import settings
from service.housekeeping import (
    backup,
    fsck,
    installation,
    needed_blobs,
    restore,
)
from service.housekeeping.backup import Saved
from service.reports import verification


def save(target: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> Saved:
    with installation.opened():
        return backup.save(target, blob_stores.store(), on_bytes=on_bytes)


@contextmanager
def settings_of(home: Path, **others: str) -> Iterator[None]:
    """Use another data folder, with a database of its own unless `others` name one."""
    with pytest.MonkeyPatch.context() as patch:
        db.close()
        patch.setenv("NEXUSMIX_HOME", str(home))
        patch.delenv("NEXUSMIX_DATABASE_URL")
        for name, value in others.items():
            patch.setenv(f"NEXUSMIX_{name}", value)
        forget()
        yield
    forget()


def forget() -> None:
    settings.cache_clear()
    blob_stores.store.cache_clear()
    db.close()


def restored(source: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> list[str]:
    return restore.restore(source, blob_stores.store, on_bytes=on_bytes)


def rows() -> dict[str, list[str]]:
    """Return all rows of all tables."""
    with db.engine().connect() as connection:
        return {
            table.name: sorted(map(str, connection.execute(select(table))))
            for table in Base.metadata.sorted_tables
        }


def check_everything(store: BlobStore) -> None:
    """Check all blobs, and the signed statement about the mix."""
    kept = blob_stores.store()
    with db.transaction() as session:
        needed = needed_blobs.find(session, kept)
        digest = session.query(Artifact).one().attestation_digest
        assert mixes.get(session, "both@1").artifact_id is not None
    assert list(fsck.check(kept, needed, on_bytes=lambda _: None)) == []
    assert digest is not None
    attestation = Attestation.model_validate_json(get_bytes(store, digest))
    checks = verification.check_version(
        attestation, kept, trusted_key=attestation.public_key, on_bytes=lambda _: None
    )
    assert all(check.holds for check in checks)


class Interrupted(Exception):
    pass


def interrupt(_: int) -> None:
    raise Interrupted
