"""The folder that vLLM is pointed at."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.model_folder import materialise, read_manifest
from registry.blobs import LocalBlobs
from registry.errors import InvalidCheckpoint, NotFound
from tests import tiny


def test_it_holds_config_tokenizer_and_manifest(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    folder = materialise(manifest, blobs, root=tmp_path / "serving")
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "manifest.json", *manifest.files}
    assert json.loads((folder / "config.json").read_text()) == manifest.config
    assert read_manifest(folder) == manifest


def test_making_it_again_changes_nothing(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    first = materialise(manifest, blobs, root=tmp_path)
    assert materialise(manifest, blobs, root=tmp_path) == first
    assert list(tmp_path.glob("incoming-*")) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/b", "..", ""])
def test_files_cannot_leave_it(name: str, blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    hostile = replace(manifest, files={name: manifest.files["tokenizer.json"]})
    with pytest.raises(InvalidCheckpoint, match="file name"):
        materialise(hostile, blobs, root=tmp_path)


def test_a_missing_blob_leaves_nothing(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = replace(tiny.store_manifest(blobs), files={"tokenizer.json": "0" * 64})
    with pytest.raises(NotFound):
        materialise(manifest, blobs, root=tmp_path / "serving")
    assert list((tmp_path / "serving").iterdir()) == []
