"""Exports on the command line for programs without nexusmix."""

import json
from pathlib import Path

import pytest

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import experts
from registry.database import db
from registry.imports.sources import Source
from tests import tiny, tiny_adapters
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.command_line import run_here

HOSTILE = "| <b>[/nope]</b> :smile:"


@pytest.fixture
def two_mixes(installation: None, store: BlobStore) -> None:
    """Publish a mixture `routed`, whose heads no stock mixture has, and a dense merge `mean`."""
    with db.transaction() as session:
        rows.add_all(session, store)
        experts.find_version(session, expert="expert-1", number=1).description = HOSTILE
        for name, preset in (("routed", "nexus"), ("mean", "merge")):
            spec = NewMix(name=name, family="tiny", experts=["expert-1", "expert-2"], preset=preset)
            publish(session, store, mixes.request(session, store, spec))


def test_a_stock_export_is_sharded_and_says_what_it_was_made_from(
    two_mixes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mean"
    words = ["export", "mean", str(folder), "--format=stock", "--max-shard-size", "20kB"]
    assert run_here(*words) == 0
    assert f"{folder}: " in capsys.readouterr().out

    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert (folder / "tokenizer.json").is_file()
    # It is no longer what was signed.
    assert not (folder / "attestation.json").exists()
    card = (folder / "README.md").read_text()
    assert "# mean@1" in card
    assert r"expert expert-1@1 | Apache-2.0 | \| \<b\>\[/nope\]\</b\> :smile: |" in card
    assert '"preset": "merge"' in card


def test_an_expert_has_its_own_layout(two_mixes: None, tmp_path: Path) -> None:
    words = ["export", "expert-2", str(tmp_path / "expert"), "--expert", "--format=stock"]
    assert run_here(*words) == 0
    assert (tmp_path / "expert" / "model.safetensors").is_file()
    assert "# expert-2@1" in (tmp_path / "expert" / "README.md").read_text()


def test_what_cannot_be_rewritten_is_refused_before_anything_is_written(
    two_mixes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here("export", "routed", str(tmp_path / "mix"), "--format=stock") == 1
    complaint = capsys.readouterr().err
    assert "routed@1 cannot be rewritten exactly for other programs: its heads are 32" in complaint
    assert not (tmp_path / "mix").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--max-shard-size=5GB"], "goes with --format stock"),
        (["--max-shard-size=5", "--format=stock"], "expected a size such as 500MB or 5GB"),
    ],
)
def test_a_wrong_size_is_refused(
    options: list[str],
    complaint: str,
    two_mixes: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here("export", "mean", str(tmp_path / "mix"), *options) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "mix").exists()


def test_the_adapter_of_an_expert_comes_back_as_it_was_sent(
    two_mixes: None, store: BlobStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = tiny_adapters.write(tmp_path / "sent")
    (sent / "chat_template.jinja").write_text(tiny.CHAT_TEMPLATE)
    config = json.dumps(tiny_adapters.config(), indent=2, sort_keys=True)
    (sent / "adapter_config.json").write_text(config)
    files = {path.name: path.read_bytes() for path in sent.iterdir()}
    del files["documents.jsonl"], files["README.md"]
    weights = files["adapter_model.safetensors"]
    source = Source(
        kind="adapter",
        digest=put_bytes(store, weights),
        size=len(weights),
        config=tiny_adapters.config(),
        files={"chat_template.jinja": put_bytes(store, files["chat_template.jinja"])},
    )
    with db.transaction() as session:
        experts.find_version(session, expert="expert-1", number=1).source = source.to_json()

    back = tmp_path / "back"
    assert run_here("export", "expert-1", str(back), "--adapter") == 0
    assert {path.name: path.read_bytes() for path in back.iterdir()} == files
    assert run_here("export", "expert-2", str(tmp_path / "none"), "--adapter") == 1
    assert "expert-2@1 was registered without an adapter" in capsys.readouterr().err
    assert run_here("export", "expert-1", str(tmp_path / "none"), "--adapter", "--format=stock")
    assert "leave out --format" in capsys.readouterr().err


def test_a_damaged_adapter_is_not_written(
    two_mixes: None, store: BlobStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = put_bytes(store, b"weights")
    source = Source(kind="adapter", digest=digest, size=7, config=tiny_adapters.config())
    with db.transaction() as session:
        experts.find_version(session, expert="expert-1", number=1).source = source.to_json()
    path = store.local_path(digest)
    path.chmod(0o600)
    path.write_bytes(b"Weights")
    assert run_here("export", "expert-1", str(tmp_path / "back"), "--adapter") == 1
    assert "adapter_model.safetensors arrived damaged" in capsys.readouterr().err
    assert not (tmp_path / "back").exists()
