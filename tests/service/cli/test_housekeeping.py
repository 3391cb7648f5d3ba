"""An installation is checked and tidied on the command line."""

import os
import re

from registry.blobs.blobs import BlobStore, get_bytes, put_bytes
from registry.database import db
from registry.settings import settings
from service.housekeeping import collection
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


def test_gc_says_what_it_would_remove_and_removes_it(store: BlobStore) -> None:
    half = settings().blobs_path / "incoming-1"
    put_bytes(store, b"young")
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    would = run("gc", "--dry-run")
    assert would.returncode == 0, would.stderr
    assert re.search(r"half uploads +1 ", would.stdout)
    assert half.exists()
    assert re.search(r"half uploads +1 ", run("gc").stdout)
    assert not half.exists()
    assert re.search(r"half uploads +0 ", run("gc").stdout)


def test_gc_waits_for_nobody(store: BlobStore) -> None:
    with collection.alone():
        done = run("gc")
    assert done.returncode == 1
    assert "another process keeps house" in done.stderr
