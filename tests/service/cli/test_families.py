"""Registering and listing families on the command line."""

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from assembler.demo.corpora import domains, public_texts
from registry.blobs.blobs import BlobStore
from registry.catalog import documents, families, projections
from registry.catalog.documents import Document, serialize
from registry.database import db
from registry.database.tables import Family, Projection, VersionState
from registry.settings import settings
from tests import factories, tiny
from tests.assembler import workers
from tests.service.command_line import COMMAND, run, run_here

PATIENCE_SECONDS = 60.0


def test_a_family_is_registered_and_listed(
    installation: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = tiny.write_checkpoint(tmp_path / "seed")
    about = ["--name=mine", "--license=MIT", "--description=a [small] seed"]
    checking = threading.Thread(target=accept_when_checking)
    checking.start()
    added = run("family", "add", str(seed), *about, "--texts=none")
    checking.join()

    assert added.returncode == 0, added.stderr
    assert "mine: the seed is ready" in added.stdout
    assert "nexusmix learn mine --documents FILE" in added.stdout
    with db.transaction() as session:
        assert families.find(session, "mine").state is VersionState.READY
    assert run_here("families") == 0
    listed = capsys.readouterr().out
    assert all(text in listed for text in ("mine", "ready", "MIT", "a [small] seed"))


@pytest.mark.slow
def test_a_family_is_ready_to_mix_with_texts_of_ones_own(
    installation: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.forget_jobs()
    seed = tiny.write_checkpoint(tmp_path / "seed")
    add = ["family", "add", str(seed), "--name=mine", "--license=MIT"]
    files = write_texts(tmp_path, "law", "code")
    with workers.worker():
        assert run_here(*add, *(f"--texts={file}" for file in files)) == 0
    printed = capsys.readouterr().out
    assert "mine is ready to mix: projection mine@1, learned from code, law" in printed
    with db.transaction() as session:
        assert projections.pin(session, "mine").number == 1

    # What exists stays: no worker is needed, and nothing is fetched.
    assert run_here(*add) == 0
    assert "projection mine@1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_default_texts_are_those_of_the_demo_and_a_second_call_goes_on(
    installation: None, store: BlobStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for domain in domains.PROJECTION_DOMAINS:
        name = f"{domain.name}-{public_texts.DOCUMENTS_PER_DOMAIN}"
        folder = settings().cache_path / "corpora" / str(domains.EXTRACTION) / name
        folder.mkdir(parents=True)
        texts = [Document(f"{domain.name}/1", "a text", "train", domain.name)]
        (folder / domains.DOCUMENTS).write_bytes(serialize(texts))
    with db.transaction() as session:
        factories.make_family(session, store, name="mine")
    seed = tiny.write_checkpoint(tmp_path / "seed")
    add = ["family", "add", str(seed), "--name=mine", "--license=Apache-2.0"]
    with subprocess.Popen([*COMMAND, *add], stderr=subprocess.PIPE, text=True) as command:
        wait_for_a_projection()
        time.sleep(1)  # until the command waits for it
        command.send_signal(signal.SIGINT)
        assert "the same command goes on" in command.communicate()[1]
    assert command.returncode == 130

    with db.transaction() as session:
        [row] = projections.find_all(session, family="mine")
        learned = documents.parse(store.read(row.documents_digest))
        assert [text.domain for text in learned] == [d.name for d in domains.PROJECTION_DOMAINS]
        metrics = {"domains": ["law", "python"]}
        projections.mark_ready(session, row, manifest_digest="m" * 64, metrics=metrics)
    assert run_here(*add) == 0
    assert "projection mine@1, learned from law, python" in capsys.readouterr().out


def wait_for_a_projection() -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with db.transaction() as session:
            if session.scalar(select(Projection)) is not None:
                return
        time.sleep(0.05)


def test_the_texts_of_experts_that_exist_are_asked_for(
    installation: None, store: BlobStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store, name="mine")
    seed = tiny.write_checkpoint(tmp_path / "seed")
    add = ["family", "add", str(seed), "--name=mine", "--license=Apache-2.0", "--texts=experts"]
    assert run_here(*add) == 1
    assert "no expert of family 'mine' is ready" in capsys.readouterr().err
    with db.transaction() as session:
        factories.make_version(session, factories.make_expert(session, family, name="law"), store)
    assert run_here(*add) == 1
    assert "1 domains to train on, two are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["default", "law.txt"], "--texts default stands alone"),
        (["nowhere.txt"], "there is no file nowhere.txt"),
        (["law.txt"], "the texts of two domains or more"),
        (["law.txt", "other/law.txt"], "have the same name"),
    ],
)
def test_texts_that_no_projection_learns_from_are_refused_before_anything_is_sent(
    installation: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    texts: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    write_texts(tmp_path, "law")
    write_texts(tmp_path / "other", "law")
    tiny.write_checkpoint(tmp_path / "seed")
    chosen = [f"--texts={text}" for text in texts]
    assert run_here("family", "add", "seed", "--name=mine", "--license=MIT", *chosen) == 1
    assert sentence in capsys.readouterr().err
    with db.transaction() as session:
        assert not families.find_all(session)


def write_texts(folder: Path, *names: str) -> list[Path]:
    """Write a plain text for each domain."""
    paths = []
    for number, name in enumerate(names, start=1):
        samples = tiny.sample_documents(expert=number, num_train=200)
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text("\n\n".join(document.text for document in samples))
    return paths


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
