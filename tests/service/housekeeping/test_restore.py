"""A restore begins with a whole backup and in an empty place, and can be repeated."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

import migrations
from registry.blobs.blob_stores import open_store
from registry.blobs.blobs import LocalBlobs
from registry.database import db
from registry.errors import Conflict, InvalidInput
from service import home as homes
from service.housekeeping import (
    backup,
    installation,
    restore,
)
from service.housekeeping.backup_folder import MANIFEST, BackupFolder
from tests import seaweed
from tests.registry.blobs.test_s3 import open_for, settings_for
from tests.service.housekeeping import stored_mix
from tests.service.housekeeping.backups import (
    Interrupted,
    interrupt,
    restored,
    rows,
    save,
    settings_of,
)

pytestmark = pytest.mark.usefixtures("installed")


def test_an_interrupted_restore_is_repeated(
    store: LocalBlobs, target: Path, elsewhere: Path
) -> None:
    before = rows()
    save(target)
    with settings_of(elsewhere):
        with pytest.raises(Interrupted):
            restored(target, on_bytes=interrupt)
        with (
            pytest.raises(Conflict, match="was being restored"),
            homes.held(elsewhere, address=""),
        ):
            pass
        assert restored(target) == []
        with installation.opened():
            assert rows() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "it is no backup"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "is damaged"),
        (lambda folder: (folder / MANIFEST).write_text('{"format": 2}'), "newer version"),
        (
            lambda folder: stored_mix.damage(folder / "database-1.dump"),
            "database-1.dump is damaged",
        ),
        (lambda folder: stored_mix.damage(folder / "blobs-1.txt"), "blobs-1.txt is damaged"),
        (lambda folder: (folder / "api-key").unlink(), "api-key is missing"),
        (
            lambda folder: (folder / MANIFEST).write_text(
                (folder / MANIFEST).read_text().replace(migrations.newest(), "9999_later")
            ),
            "9999_later, which this version does not know",
        ),
    ],
    ids=["no backup", "damaged", "newer", "dump", "list", "key", "schema"],
)
def test_a_backup_that_is_not_whole_is_refused_before_anything_is_written(
    store: LocalBlobs,
    target: Path,
    elsewhere: Path,
    change: Callable[[Path], object],
    message: str,
) -> None:
    save(target)
    change(target)
    with settings_of(elsewhere):
        with pytest.raises(InvalidInput, match=message):
            restored(target)
        assert not elsewhere.exists()


def test_a_damaged_blob_of_a_backup_is_named(
    store: LocalBlobs, target: Path, elsewhere: Path
) -> None:
    save(target)
    blob = next(BackupFolder(target).blobs.stored())
    stored_mix.damage(BackupFolder(target).blobs.local_path(blob.digest))
    with settings_of(elsewhere), pytest.raises(InvalidInput, match=f"{blob.digest} of the backup"):
        restored(target)


def test_a_bucket_and_a_database_of_your_own_are_restored(
    store: LocalBlobs, target: Path, tmp_path: Path, database: str
) -> None:
    save(target)
    own = make_url(database).set(database="restored")
    admin = create_engine(database, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE restored"))
    url = own.render_as_string(hide_password=False)
    try:
        with seaweed.SeaweedServer(tmp_path / "seaweed") as server:
            bucket = open_for(server, tmp_path / "one")
            with settings_of(tmp_path / "two", DATABASE_URL=url):
                config = settings_for(server, tmp_path / "two")
                assert restore.restore(target, lambda: open_store(config), on_bytes=print) == []
                assert len(list(bucket.stored())) == len(list(store.stored()))
                saved = backup.save(tmp_path / "again", bucket, on_bytes=lambda _: None)
                assert saved.num_copied == saved.manifest.num_blobs
                db.close()
            with (
                settings_of(tmp_path / "three", DATABASE_URL=url),
                pytest.raises(Conflict, match="restore into an empty bucket"),
            ):
                restore.restore(target, lambda: bucket, on_bytes=print)
            with settings_of(tmp_path / "four", DATABASE_URL=url):
                with pytest.raises(Conflict, match="the database has tables already"):
                    restored(target)
                db.close()
    finally:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE restored WITH (FORCE)"))
