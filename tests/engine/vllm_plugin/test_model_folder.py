"""The model folder that vLLM loads."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.vllm_plugin.model_folder import materialize, read_manifest
from registry.blobs.blobs import LocalBlobs
from registry.errors import InvalidCheckpoint, NotFound
from tests import tiny


def test_folder_holds_config_tokenizer_and_manifest(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    folder = materialize(manifest, blobs, root=tmp_path / "serving")
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "manifest.json", *manifest.files}
    assert json.loads((folder / "config.json").read_text()) == manifest.config
    assert read_manifest(folder) == manifest


def test_vllm_gets_plain_positions_where_a_model_scales_them_beyond_its_context(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifest = tiny.store_manifest(blobs)
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    config = {k: v for k, v in manifest.config.items() if k != "rope_parameters"}
    scaled = replace(manifest, config=config | {"rope_scaling": scaling, "rope_theta": 500.0})
    folder = materialize(scaled, blobs, root=tmp_path)
    read = json.loads((folder / "config.json").read_text())
    assert read["rope_parameters"] == {"rope_type": "default", "rope_theta": 500.0}
    assert "rope_scaling" not in read
    assert materialize(scaled, blobs, root=tmp_path) == folder


def test_materialize_twice_changes_nothing(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    first = materialize(manifest, blobs, root=tmp_path)
    assert materialize(manifest, blobs, root=tmp_path) == first
    assert list(tmp_path.glob(".*")) == []


def chat_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": "{{ messages }}"}))


def config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 500.0}))


def unreadable_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def missing_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def another_file(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def stale_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (chat_template, "tokenizer_config.json"),
        (config, "config.json"),
        (unreadable_config, "config.json"),
        (missing_tokenizer, "tokenizer.json"),
        (another_file, "chat_template.jinja"),
        (stale_manifest, "manifest.json"),
    ],
)
def test_a_changed_folder_is_refused(
    change: Callable[[Path], None], name: str, blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifest = tiny.store_manifest(blobs)
    change(materialize(manifest, blobs, root=tmp_path))
    with pytest.raises(InvalidCheckpoint, match="was changed") as refused:
        materialize(manifest, blobs, root=tmp_path)
    assert [problem.pointer for problem in refused.value.problems] == [f"/files/{name}"]


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/b", "..", ""])
def test_file_names_outside_the_folder_are_refused(
    name: str, blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifest = tiny.store_manifest(blobs)
    hostile = replace(manifest, files={name: manifest.files["tokenizer.json"]})
    with pytest.raises(InvalidCheckpoint, match="file name"):
        materialize(hostile, blobs, root=tmp_path)


def test_a_missing_blob_leaves_no_folder(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = replace(tiny.store_manifest(blobs), files={"tokenizer.json": "0" * 64})
    with pytest.raises(NotFound):
        materialize(manifest, blobs, root=tmp_path / "serving")
    assert list((tmp_path / "serving").iterdir()) == []


def test_a_stored_file_that_was_changed_leaves_no_folder(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    path = blobs.local_path(manifest.files["tokenizer.json"])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InvalidCheckpoint, match=r"the stored file tokenizer\.json is not what"):
        materialize(manifest, blobs, root=tmp_path / "serving")
    assert not list((tmp_path / "serving").iterdir())
