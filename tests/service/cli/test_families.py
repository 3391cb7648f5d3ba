"""Registering and listing families on the command line."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from registry.blobs.blobs import BlobStore
from registry.catalog import families
from registry.database import db
from registry.database.tables import Family, VersionState
from tests import factories, tiny
from tests.service.command_line import run, run_here

PATIENCE_SECONDS = 60.0


def test_a_family_is_registered_and_listed(
    installation: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = tiny.write_checkpoint(tmp_path / "seed")
    about = ["--name=mine", "--license=MIT", "--description=a [small] seed"]
    checking = threading.Thread(target=accept_when_checking)
    checking.start()
    added = run("family", "add", str(seed), *about)
    checking.join()

    assert added.returncode == 0, added.stderr
    assert "mine is ready" in added.stdout
    assert "nexusmix learn mine --documents FILE" in added.stdout
    with db.transaction() as session:
        assert families.find(session, "mine").state is VersionState.READY
    assert run_here("families") == 0
    listed = capsys.readouterr().out
    assert all(text in listed for text in ("mine", "ready", "MIT", "a [small] seed"))


def accept_when_checking() -> None:
    """Do what a worker does who finds the first seed sound."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with db.transaction() as session:
            family = session.scalar(select(Family))
            if family is not None and family.state is VersionState.CHECKING:
                families.mark_ready(session, family.id, seed_digest=family.seed_digest)
                return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("folder", "name", "license", "sentence"),
    [
        ("/missing", "mine", "MIT", "there is no folder /missing"),
        ("/missing", "mine", "Apache2", "has 'Apache2', which SPDX does not know"),
        ("seed", "a/b", "MIT", "'a/b' cannot be a name"),
        ("seed", "tiny", "MIT", "is used by law: a seed that experts branched from never changes"),
    ],
)
def test_a_family_that_cannot_be_added_is_one_sentence(
    installation: None,
    store: BlobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    name: str,
    license: str,
    sentence: str,
) -> None:
    with db.transaction() as session:
        factories.make_version(
            session,
            factories.make_expert(session, factories.make_family(session, store), name="law"),
            store,
        )
    tiny.write_checkpoint(tmp_path / "seed", expert=2)
    monkeypatch.chdir(tmp_path)

    assert run_here("family", "add", folder, f"--name={name}", f"--license={license}") == 1
    assert sentence in capsys.readouterr().err


def test_a_seed_that_failed_is_listed_with_the_reason_and_retried(
    installation: None, store: BlobStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store, name="mine")
        families.begin_checks(family)
        session.flush()
        families.mark_failed(session, family.id, error="names no [bold] architecture")
    assert run_here("families") == 0
    listed = capsys.readouterr().out
    assert all(text in listed for text in ("failed", "names no [bold] architecture", "1"))
    assert run_here("family", "retry", "nobody") == 1
    assert "no family 'nobody'" in capsys.readouterr().err

    checking = threading.Thread(target=accept_when_checking)
    checking.start()
    assert run_here("family", "retry", "mine") == 0
    checking.join()
    assert "mine is ready" in capsys.readouterr().out
