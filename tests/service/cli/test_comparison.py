"""`nexusmix gate` as a process, and the models that its arguments name."""

import json
import subprocess
from pathlib import Path

import pytest

from assembler.evaluation.comparison_request import Folder, Served, Stored
from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.gates.comparison_gate import DivergenceReport
from registry.blobs.blobs import BlobStore
from registry.database import db
from registry.errors import InvalidInput, NotFound
from registry.settings import settings
from service.cli import comparison
from tests import tiny
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.command_line import run

SHORT = ["--prompts", "3", "--prefix-tokens", "12", "--completion-tokens", "8"]


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("gate", *arguments, *SHORT)


@pytest.fixture
def seed(tmp_path: Path) -> str:
    return str(tiny.write_checkpoint(tmp_path / "seed"))


@pytest.fixture
def expert(tmp_path: Path) -> str:
    return str(tiny.write_checkpoint(tmp_path / "expert", expert=1))


def test_kept_limits_end_with_0_and_a_report(expert: str, tmp_path: Path) -> None:
    done = gate(expert, expert, "--report", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stderr
    assert "kept" in done.stdout
    assert "noise floor" in done.stdout
    report = DivergenceReport.model_validate_json((tmp_path / "report.json").read_text())
    assert report.passed
    assert [domain.domain for domain in report.domains] == ["expert"]


def test_a_missed_limit_ends_with_1_and_shows_the_place(seed: str, expert: str) -> None:
    done = gate(seed, expert, "--max-sdt", "0.5")
    assert done.returncode == 1
    assert "not kept  expert: sdt is" in done.stdout
    assert "token 0, margin" in done.stdout


def test_a_wrong_threshold_is_refused_before_the_child_starts(expert: str) -> None:
    done = gate(expert, expert, "--min-fdt-75", "9")
    assert done.returncode == 1
    assert "min_fdt_75 is 9, but only 8 tokens are compared" in done.stderr
    assert not (settings().home / "logs").exists()


def test_the_error_of_the_child_is_printed(seed: str, expert: str) -> None:
    config = Path(seed) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 65}))
    done = gate(expert, seed)
    assert done.returncode == 1
    assert "the vocabularies differ" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_documents_are_named(seed: str) -> None:
    done = gate(seed, seed)
    assert done.returncode == 1
    assert "--documents" in done.stderr


def test_a_folder_is_found_with_its_documents(expert: str) -> None:
    subject, texts = comparison.find_model(expert)
    assert subject == Folder(path=Path(expert))
    assert [own.domain for own in texts] == ["expert"]


def test_a_server_is_found_with_its_model() -> None:
    subject, texts = comparison.find_model("http://127.0.0.1:8000/v1#mine")
    assert (subject, texts) == (Served(address="http://127.0.0.1:8000/v1", model="mine"), [])


@pytest.mark.parametrize("words", ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000#m"])
def test_an_incomplete_server_is_refused_with_the_right_form(words: str) -> None:
    with pytest.raises(InvalidInput, match="http://HOST:PORT/v1#MODEL"):
        comparison.find_model(words)


def test_an_argument_that_names_no_model_is_refused_with_the_right_forms() -> None:
    with pytest.raises(InvalidInput, match="no folder, no NAME"):
        comparison.find_model("Not a name")


def test_mixes_and_experts_of_the_service_are_found(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        publish(session, store, mixes.request(session, store, spec))
    mix, texts = comparison.find_model("both")
    expert, own = comparison.find_model("expert-2@1")
    with pytest.raises(NotFound):
        comparison.find_model("nobody")
    assert isinstance(mix, Stored)
    assert mix.ref == "both@1"
    assert [text.domain for text in texts] == ["expert-1", "expert-2"]
    assert isinstance(expert, Stored)
    assert expert.ref == "expert-2@1"
    assert own == [texts[1]]


def test_a_wrong_path_is_one_sentence_before_any_work(expert: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(InvalidInput, match="there is no folder"):
        comparison.find_model(missing)
    done = gate(expert, expert, f"--documents={missing}.jsonl")
    unwritable = gate(expert, expert, f"--report={missing}/report.json")

    assert f"there is no file {missing}.jsonl" in done.stderr
    assert f"there is no folder {missing}" in unwritable.stderr
    assert not (settings().home / "logs").exists()
