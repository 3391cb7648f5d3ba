"""An exported folder holds the checkpoint, and is complete or absent."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints import exports
from registry.checkpoints.manifests import Notes, TensorEntry
from registry.checkpoints.safetensors_header import read_header
from registry.errors import Conflict, NotFound, OutOfSpace
from tests import small_disk, tiny


def test_the_exported_folder_is_the_checkpoint(blobs: LocalBlobs, tmp_path: Path) -> None:
    folder = tmp_path / "exported" / "expert"
    heard: list[int] = []
    manifest = tiny.store_manifest(blobs, expert=1)
    exports.export(manifest, blobs, folder, on_bytes=heard.append)

    data = (folder / "model.safetensors").read_bytes()
    spans = read_header(folder / "model.safetensors")
    assert {n: data[s.start : s.end] for n, s in spans.items()} == tiny.tensors(expert=1)
    assert json.loads((folder / "config.json").read_text()) == tiny.config()
    for name, content in tiny.tokenizer_files().items():
        assert (folder / name).read_bytes() == content
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert exports.file_sizes(manifest, blobs) == sizes
    assert sum(heard) == sum(sizes.values())


def test_what_is_kept_aside_lies_beside_the_checkpoint(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs, expert=1)
    rows, tokenizer = put_bytes(blobs, b"\1\2" * 64), put_bytes(blobs, b"{}")
    notes = Notes(
        rows={"model.embed_tokens.weight": TensorEntry("BF16", (2, 32), rows)},
        files={"tokenizer.json": tokenizer},
    )
    manifest = replace(manifest, notes=notes)
    exports.export(manifest, blobs, tmp_path / "expert", on_bytes=lambda _: None)
    beside = {path.name: path for path in (tmp_path / "expert").glob("aside.*")}
    assert set(beside) == {"aside.safetensors", "aside.tokenizer.json"}
    assert beside["aside.safetensors"].read_bytes().endswith(b"\1\2" * 64)
    assert read_header(beside["aside.safetensors"])["model.embed_tokens.weight"].shape == (2, 32)
    assert beside["aside.tokenizer.json"].read_bytes() == b"{}"
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "expert").iterdir()}
    assert exports.file_sizes(manifest, blobs) == sizes


def test_an_existing_folder_is_not_overwritten(blobs: LocalBlobs, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="exists"):
        exports.export(tiny.store_manifest(blobs), blobs, tmp_path, on_bytes=lambda _: None)


def test_a_lost_blob_leaves_no_folder(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    blobs.local_path(manifest.tensors["model.norm.weight"].digest).unlink()
    with pytest.raises(NotFound):
        exports.export(manifest, blobs, tmp_path / "made" / "here", on_bytes=lambda _: None)
    assert list((tmp_path / "made").iterdir()) == []


def test_a_full_disk_is_noticed_before_writing(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(OutOfSpace, match="free"):
        exports.export(tiny.store_manifest(blobs), blobs, tmp_path / "new", on_bytes=lambda _: None)
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_meanwhile_leaves_no_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from registry import errors\n"
        "from registry.checkpoints import exports\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        "    with exports.new_folder(root / 'new', num_bytes=1) as incoming:\n"
        "        (incoming / 'large').write_bytes(bytes(2 << 20))\n"
        "except errors.OutOfSpace as error:\n"
        "    assert str(root) in error.detail\n"
        "    assert list(root.iterdir()) == []\n"
        "    print('refused')"
    )
    assert small_disk.run(code, tmp_path) == "refused\n"
