"""Training and registering on the command line, with a plain text."""

import json
import threading
import time
from pathlib import Path

import pytest

from registry.blobs.blobs import BlobStore
from registry.catalog import experts
from registry.catalog.document_files import read_text
from registry.catalog.documents import parse
from registry.database import db
from registry.database.tables import ExpertVersion, VersionState
from registry.settings import settings
from tests import factories, tiny
from tests.assembler import rows
from tests.service.command_line import run, run_here

PATIENCE_SECONDS = 60.0


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "own.txt"
    samples = tiny.sample_documents(expert=1, num_train=200)
    path.write_text("\n\n".join(document.text for document in samples))
    return path


def test_the_split_of_a_text_is_printed(tmp_path: Path, text: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    about = ["--name", "law", "--family", "tiny", "--license", "CC0-1.0"]
    done = run("register", str(folder), "--documents", str(text), *about)

    num_documents = len(read_text(text))
    assert f"{num_documents} documents, {num_documents // 10} of them held out" in done.stdout
    assert "no service runs" in done.stderr


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("short")
    done = run("train-expert", str(text), str(tmp_path / "expert"))

    assert done.returncode == 1
    assert "short.txt has too little text" in done.stderr
    assert "at least 10 different ones are needed" in done.stderr


@pytest.mark.slow
def test_an_expert_is_trained_on_a_text(tmp_path: Path, text: Path) -> None:
    seed, target = tiny.write_checkpoint(tmp_path / "seed"), tmp_path / "expert"
    chosen = ["--seed", str(seed), "--tokens", "4096", "--train", "all", "--learning-rate", "1e-3"]
    done = run("train-expert", str(text), str(target), *chosen)

    assert done.returncode == 0, done.stderr
    assert "held-out perplexity" in done.stdout
    assert parse([(target / "documents.jsonl").read_bytes()]) == read_text(text)
    training = json.loads((target / "metrics.json").read_text())["training"]
    assert (training["train"], training["learning_rate"]) == ("all", 1e-3)


def test_a_registration_that_fails_ends_with_one_sentence(
    installation: None, store: BlobStore, tmp_path: Path
) -> None:
    with db.transaction() as session:
        factories.make_family(session, store)
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    about = ["--name", "law", "--family", "tiny", "--license", "CC0-1.0"]
    failing = threading.Thread(target=fail_when_checking)
    failing.start()
    done = run("register", str(folder), *about)
    failing.join()

    assert done.returncode == 1
    assert "nexusmix: law@1 is failed: the machine is short of memory\n" in done.stderr


def fail_when_checking() -> None:
    """Do what a worker does whose check of the first version fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with db.transaction() as session:
            version = session.get(ExpertVersion, 1)
            if version is not None and version.state is VersionState.CHECKING:
                experts.mark_failed(session, 1, error="the machine is short of memory")
                return
        time.sleep(0.05)


def test_experts_are_listed(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store)
        factories.make_expert(session, family, name="law")
    done = run("experts")

    assert done.returncode == 0, done.stderr
    assert "law" in done.stdout
    assert "CC0-1.0" in done.stdout


def test_an_existing_folder_is_not_overwritten(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("expert")
    done = run("train-expert", "documents.jsonl", str(folder))

    assert done.returncode == 1
    assert "exists already" in done.stderr


ABOUT = ["--name=law", "--family=tiny", "--license=MIT"]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["train-expert", "none.txt", "new"], "there is no file none.txt"),
        (["train-expert", "own.txt", "new", "--seed=/missing"], "there is no folder /missing"),
        (["train-expert", "own.txt", "new", "--seed=own.txt"], "own.txt is a file, not a folder"),
        (["train-expert", "own.txt", "own.txt/new"], "own.txt is a file"),
        (["register", "/missing", *ABOUT], "there is no folder /missing"),
        (["register", "expert", *ABOUT, "--documents=none.txt"], "there is no file none.txt"),
        (["register", "expert", "--name=a/b", *ABOUT[1:]], "'a/b' cannot be a name: take 1 to 63"),
        (["register", "expert", "--family=a/b", *ABOUT[::2]], "'a/b' cannot be a name"),
        (
            ["register", "/missing", *ABOUT[:2], "--license=not a license"],
            "the license 'not a license' has 'not a license', which SPDX does not know",
        ),
        (["learn", "tiny", "--documents=none.jsonl"], "there is no file none.jsonl"),
        (["learn", "tiny", "--documents=own.txt"], "its name must end in .jsonl"),
        (["learn", "tiny", "--documents=expert/documents.jsonl"], "trained on named domains"),
        (["learn", "a/b"], "'a/b' cannot be a name"),
        (["learn", "tiny", "nobody"], "no expert 'nobody'"),
        (["learn", "tiny"], "give documents of two domains or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_input_is_one_sentence_before_any_work(
    installation: None,
    store: BlobStore,
    tmp_path: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    sentence: str,
) -> None:
    with db.transaction() as session:
        rows.add_family(session, store)
    tiny.write_checkpoint(tmp_path / "expert", expert=1)
    monkeypatch.chdir(tmp_path)
    assert run_here(*command) == 1
    printed = capsys.readouterr()

    assert sentence in printed.err
    assert "ended with status" not in printed.err
    assert not (tmp_path / "new").exists()
    # No child process has begun.
    assert not (settings().home / "logs" / "preparation").exists()


def test_documents_are_forgotten_on_the_command_line(
    installation: None, store: BlobStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store)
        factories.make_version(session, factories.make_expert(session, family, name="law"), store)
    assert run_here("forget-documents", "law") == 1
    assert "'law' names no version: give NAME@NUMBER" in capsys.readouterr().err
    assert run_here("forget-documents", "law@1") == 0
    printed = capsys.readouterr().out
    assert "law@1 keeps no documents" in printed
    assert "Backups that were made before still hold them" in printed
    with db.transaction() as session:
        assert experts.pin(session, "law").kept_documents is None
