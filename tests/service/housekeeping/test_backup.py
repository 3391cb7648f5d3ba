"""The restore drill: an installation is saved while uploads run, restored elsewhere, and verified.

Covers: backup_folder, pg_programs, restore.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, select, text

import migrations
from assembler.mixes import mixes
from registry.blobs import blob_stores
from registry.blobs.blob_stores import open_store
from registry.blobs.blobs import BlobStore, LocalBlobs, get_bytes, put_bytes
from registry.catalog import blob_permissions, uploads
from registry.checkpoints.attestations import Attestation
from registry.checkpoints.checkpoint_folder import CheckpointFolder
from registry.database import db
from registry.database.db import Base
from registry.database.tables import Artifact, ExpertVersion, VersionState
from registry.errors import Conflict, InvalidInput, StepFailed, Unavailable
from registry.settings import settings
from service import home as homes
from service import keys
from service.housekeeping import (
    backup,
    collection,
    fsck,
    installation,
    needed_blobs,
    pg_programs,
    restore,
)
from service.housekeeping.backup import Saved
from service.housekeeping.backup_folder import MANIFEST, BackupFolder
from service.reports import verification
from tests import seaweed, tiny
from tests.registry.blobs.test_s3 import open_for, settings_for
from tests.registry.catalog import uploading
from tests.service.command_line import run
from tests.service.housekeeping import stored_mix
from tests.service.services import serving


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


def save(target: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> Saved:
    with installation.opened():
        return backup.save(target, blob_stores.store(), on_bytes=on_bytes)


@contextmanager
def settings_of(home: Path, **others: str) -> Iterator[None]:
    """Use another data folder, with a database of its own unless `others` name one."""
    with pytest.MonkeyPatch.context() as patch:
        db.engine().dispose()
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
    db.engine.cache_clear()


def restored(source: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> list[str]:
    return restore.restore(source, blob_stores.store, on_bytes=on_bytes)


def rows() -> dict[str, list[object]]:
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


def test_an_installation_is_restored_as_it_was(
    store: LocalBlobs, target: Path, elsewhere: Path
) -> None:
    before, secrets = rows(), [path.read_bytes() for path in backup.key_files()]
    saved = save(target)
    assert not saved.lost
    with settings_of(elsewhere):
        assert restored(target) == []
        with installation.opened():
            assert rows() == before
            check_everything(store)
        assert [path.read_bytes() for path in backup.key_files()] == secrets
        assert {path.stat().st_mode & 0o777 for path in backup.key_files()} == {0o600}
        with pytest.raises(Conflict, match="holds an installation already"):
            restored(target)


def register(store: LocalBlobs, checkpoint: CheckpointFolder, *, number: int) -> None:
    """Register an expert as clients do, in small steps."""
    name = f"new-{number}"
    assert checkpoint.documents is not None
    with db.transaction() as session:
        upload = uploading.begin_expert(session, store, number=number, expert=name)
    for digest in upload.missing:
        store.put(checkpoint.sources[digest].chunks(), digest=digest)
    with db.transaction() as session:
        blob_permissions.record_sent(session, upload.missing, sender=uploading.SENDER)
        uploads.complete_expert_version(
            session, store, expert=name, number=1, sender=uploading.SENDER
        )


def test_a_backup_that_is_made_while_uploads_run_is_whole(
    store: LocalBlobs, target: Path, elsewhere: Path, tmp_path: Path
) -> None:
    checkpoints = {
        number: CheckpointFolder.read(tiny.write_checkpoint(tmp_path / str(number), expert=number))
        for number in range(3, 9)
    }
    registered, copied = [], threading.Event()

    def upload() -> None:
        for number, checkpoint in checkpoints.items():
            register(store, checkpoint, number=number)
            registered.append(number)
            if number == 5:
                copied.wait(timeout=60)

    uploading = threading.Thread(target=upload)
    uploading.start()
    saved = save(target, on_bytes=lambda _: copied.set())
    uploading.join()
    assert len(registered) == len(checkpoints)
    assert not saved.lost
    with settings_of(elsewhere):
        assert restored(target) == []
        with installation.opened():
            check_everything(store)
            with db.transaction() as session:
                ready = session.query(ExpertVersion).filter_by(state=VersionState.READY).count()
            assert 2 <= ready <= 2 + len(checkpoints)


def test_a_second_backup_copies_what_is_new(store: LocalBlobs, target: Path) -> None:
    first = save(target)
    assert first.num_copied == first.manifest.num_blobs > 50
    again = save(target)
    assert (again.num_copied, again.manifest.number) == (0, 2)
    with db.transaction() as session:
        version = session.query(ExpertVersion).first()
        assert version is not None
        old, version.documents_digest = version.documents_digest, put_bytes(store, b"others")
    third = save(target)
    assert third.num_copied == 1
    there = {blob.digest for blob in BackupFolder(target).blobs.stored()}
    assert len(there) == third.manifest.num_blobs
    assert put_bytes(store, b"others") in there
    assert (old in there) == (old in needed_now(store))
    assert sorted(path.name for path in target.iterdir()) == [
        "api-key",
        MANIFEST,
        "blobs",
        "blobs-3.txt",
        "database-3.dump",
        "signing-key.pem",
    ]


def needed_now(store: LocalBlobs) -> set[str]:
    with db.transaction() as session:
        return set(needed_blobs.find(session, store).needed_by)


def test_lost_blobs_are_named_and_all_others_are_saved(
    store: LocalBlobs, target: Path, elsewhere: Path
) -> None:
    with db.transaction() as session:
        report = mixes.get(session, "both@1").gate_report_digest
    assert report is not None
    stored_mix.damage(store.local_path(report))
    assert save(target).lost == {report: ["mix both@1: gate report", "artifact 1: gate report"]}
    with settings_of(elsewhere):
        assert restored(target) == [report]


def test_other_folders_are_refused(store: LocalBlobs, target: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"")
    with pytest.raises(Conflict, match="is not empty"):
        save(tmp_path / "photos")
    save(target)
    settings().signing_key_path.unlink()
    with pytest.raises(Conflict, match="another installation"):
        save(target)
    with collection.alone(), pytest.raises(Conflict, match="keeps house"):
        save(tmp_path / "third")


class Interrupted(Exception):
    pass


def interrupt(_: int) -> None:
    raise Interrupted


def test_an_interrupted_backup_is_repeated(store: LocalBlobs, target: Path) -> None:
    with pytest.raises(Interrupted):
        save(target, on_bytes=interrupt)
    with pytest.raises(InvalidInput, match="was interrupted"):
        BackupFolder(target).read()
    whole = save(target).manifest
    put_bytes(store, b"new")
    with db.transaction() as session:
        for version in session.query(ExpertVersion):
            version.documents_digest = put_bytes(store, b"new")
    with pytest.raises(Interrupted):
        save(target, on_bytes=interrupt)
    folder = BackupFolder(target)
    assert folder.read() == whole, "the backup before is still whole"
    assert whole.database is not None
    folder.check(whole.database)


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
                db.engine().dispose()
            with (
                settings_of(tmp_path / "three", DATABASE_URL=url),
                pytest.raises(Conflict, match="restore into an empty bucket"),
            ):
                restore.restore(target, lambda: bucket, on_bytes=print)
            with settings_of(tmp_path / "four", DATABASE_URL=url):
                with pytest.raises(Conflict, match="the database has tables already"):
                    restored(target)
                db.engine().dispose()
    finally:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE restored WITH (FORCE)"))


def test_a_failing_program_is_quoted_and_an_old_one_is_not_used(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepFailed, match=r"pg_restore ended with status 1: .*none"):
        pg_programs.restore(database, tmp_path / "none", server_version=18)
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="no pg_dump of PostgreSQL 99 or newer"):
        pg_programs.dump(database, tmp_path / "x", snapshot="", server_version=99)


def test_a_password_is_no_argument_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "pg_dump"
    fake.write_text(f'#!/bin/sh\necho "PostgreSQL 99"; echo "$@ $PGPASSWORD" >> {tmp_path}/seen\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    url = "postgresql+psycopg://me:secret@127.0.0.1/mine"
    pg_programs.dump(url, tmp_path / "x", snapshot="1-1", server_version=18)
    arguments, _, password = (tmp_path / "seen").read_text().splitlines()[-1].rpartition(" ")
    assert password == "secret"
    assert "secret" not in arguments
    assert "postgresql://me@127.0.0.1/mine" in arguments


@pytest.mark.slow
def test_the_service_runs_on_a_restored_folder(
    store: LocalBlobs, target: Path, elsewhere: Path
) -> None:
    saved, key = run("backup", str(target)), settings().key_path.read_text()
    assert saved.returncode == 0, saved.stderr
    with settings_of(elsewhere):
        again = run("restore", str(target))
        assert again.returncode == 0, again.stderr
        assert f"is restored into {elsewhere}" in again.stdout
        with serving(elsewhere):
            assert run("key").stdout == key
            done = run("verify", "both")
            assert done.returncode == 0, done.stdout + done.stderr
            assert run("fsck").returncode == 0
            assert run("backup", str(target)).returncode == 0
