"""The restore drill: an installation is saved while uploads run, restored elsewhere, and verified.

Covers: backup_folder.
"""

import threading
from pathlib import Path

import pytest

from assembler.mixes import mixes
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import blob_permissions, uploads
from registry.database import db
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import Conflict, InvalidInput
from registry.ingest.checkpoint_folder import CheckpointFolder
from registry.settings import settings
from service.housekeeping import (
    backup,
    collection,
    installation,
    needed_blobs,
)
from service.housekeeping.backup_folder import MANIFEST, BackupFolder
from tests import tiny
from tests.registry.catalog import uploading
from tests.service.command_line import run
from tests.service.housekeeping import stored_mix
from tests.service.housekeeping.backups import (
    Interrupted,
    check_everything,
    interrupt,
    restored,
    rows,
    save,
    settings_of,
)
from tests.service.services import serving

pytestmark = pytest.mark.usefixtures("installed")


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
                sent = session.query(ExpertVersion).filter(
                    ExpertVersion.state != VersionState.UPLOADING
                )
                assert 2 <= sent.count() <= 2 + len(checkpoints)


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


@pytest.mark.long
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
