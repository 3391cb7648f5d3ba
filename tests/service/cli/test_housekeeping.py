"""An installation is checked on the command line."""

from registry.blobs.blobs import BlobStore, get_bytes, put_bytes
from registry.database import db
from tests.service.command_line import run
from tests.service.housekeeping import stored_mix


def test_fsck_names_what_is_missing_and_ends_with_1(store: BlobStore) -> None:
    with db.transaction() as session:
        report = stored_mix.add(session, store).gate_report_digest
    assert report is not None
    whole = run("fsck")
    assert whole.returncode == 0, whole.stderr
    assert "0 are missing or damaged" in whole.stdout
    content = get_bytes(store, report)
    stored_mix.damage(store.local_path(report))

    damaged, discarded, missing = run("fsck"), run("fsck", "--discard-damaged"), run("fsck")

    assert [done.returncode for done in (damaged, discarded, missing)] == [1, 1, 1]
    assert f"{report} is damaged: mix both@1: gate report; artifact 1: gate report" in (
        damaged.stdout
    )
    assert f"{report} is missing" in missing.stdout
    put_bytes(store, content)
    assert run("fsck", "--quick").returncode == 0


def test_fsck_needs_an_installation() -> None:
    done = run("fsck")
    assert done.returncode == 1
    assert "there is no installation in" in done.stderr
