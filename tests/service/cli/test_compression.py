"""`nexusmix compress` as a process.

Covers: assembler.jobs.offline_tasks.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.safetensors_header import read_header, read_raw_header
from registry.database import db
from registry.errors import Conflict, InvalidInput
from service.cli import compression
from tests import tiny
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.command_line import run

FIELDS = {"min_fdt_75": 0.0, "rounds": 2, "prompts": 4}


def compress(source: Path | str, **changes: Any) -> None:
    arguments = {"documents": None, "output": None, "is_expert": False} | changes
    compression.run(str(source), FIELDS, **arguments)


@pytest.mark.slow
def test_a_folder_is_compressed(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    output = tmp_path / "compressed"
    done = run("compress", str(folder), "--min-fdt-75=0", "--rounds=2", f"--output={output}")

    assert done.returncode == 0, done.stderr
    assert "FDT 75" in done.stdout
    config = json.loads((output / "config.json").read_text())
    assert len(int8_modules(config)) == 2 * 7
    header = json.loads(read_raw_header(output / "model.safetensors"))
    assert header["model.layers.1.mlp.up_proj.weight"]["dtype"] == "I8"
    assert header["model.layers.1.mlp.up_proj.weight_scale"]["shape"] == [64, 1]
    assert (output / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} >= {"expert", "compressed"}
    assert not list(tmp_path.glob(".compress-*"))


@pytest.mark.slow
def test_a_mix_is_compressed_in_the_store(
    installation: None, store: BlobStore, tmp_path: Path
) -> None:
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=3)
        spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        mix = publish(session, store, mixes.request(session, store, spec))
        before = manifests.load(store, mix.assembled_digest or "")
    words = ["--min-fdt-75=0", "--rounds=1", f"--output={tmp_path / 'small'}"]
    done = run("compress", "mine", *words)

    assert done.returncode == 0, done.stderr
    digest = done.stdout.partition("manifest ")[2].partition(":")[0]
    compressed = manifests.load(store, digest)
    assert compressed.num_bytes < before.num_bytes
    shared = [name for name in before.tensors if ".mlp.experts." in name]
    assert all(compressed.tensors[name] == before.tensors[name] for name in shared)
    assert json.loads((tmp_path / "small" / "config.json").read_text()) == compressed.config


@pytest.mark.slow
def test_an_expert_is_compressed_in_the_store(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=1)
    before = tiny.store_manifest(store, expert=1).num_bytes
    done = run("compress", "expert-1", "--expert", f"--max-bytes={before - 1}")

    assert done.returncode == 0, done.stderr
    digest = done.stdout.partition("manifest ")[2].partition(":")[0]
    compressed = manifests.load(store, digest)
    assert compressed.num_bytes < before
    assert 0 < len(int8_modules(compressed.config)) < 2 * 7


@pytest.mark.slow
def test_a_folder_is_made_sparse(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    output = tmp_path / "sparse"
    done = run(
        "compress",
        str(folder),
        "--sparsity=0.5",
        "--step=0.5",
        "--retrain-tokens=512",
        "--keep-zeros",
        f"--output={output}",
    )

    assert done.returncode == 0, done.stderr
    assert "from 90 %" in done.stdout
    assert (output / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert (
        read_header(output / "model.safetensors").keys()
        == read_header(folder / "model.safetensors").keys()
    )
    before, after = (load_file(path / "model.safetensors") for path in (folder, output))
    matrices = [name for name in before if "_proj" in name]
    zeros = sum(int((after[name] == 0).sum()) for name in matrices)
    assert zeros == pytest.approx(sum(before[name].numel() for name in matrices) / 2, rel=0.01)


@pytest.mark.slow
def test_an_expert_is_made_sparse_in_the_store(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=1)
    before = tiny.store_manifest(store, expert=1)
    done = run("compress", "expert-1", "--expert", "--sparsity=0.5", "--by=uniform")

    assert done.returncode == 0, done.stderr
    digest = done.stdout.partition("manifest ")[2].partition(":")[0]
    sparse = manifests.load(store, digest)
    assert sparse.num_stored_bytes < before.num_stored_bytes
    assert all(
        (entry.num_nonzero is not None) == ("_proj" in name)
        for name, entry in sparse.tensors.items()
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"sparsity": 0.5, "max_bytes": 10}, "Extra inputs are not permitted"),
        ({"sparsity": 1.5}, "less than or equal to 1"),
        ({"min_fdt_75": 1, "step": 0.1}, "Extra inputs are not permitted"),
        ({}, "one of max_bytes and min_fdt_75 is needed"),
        ({"min_fdt_75": 1, "by": "luck"}, "'fdt', 'dppl', 'perplexity' or 'order'"),
    ],
)
def test_a_wrong_request_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compression.read_request(fields)
    assert problem in refused.value.problems[0].detail


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    with pytest.raises(Conflict, match="exists already"):
        compress(folder, output=folder)


def test_a_folder_needs_an_output_and_documents(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "seed")
    with pytest.raises(InvalidInput, match="--output is missing"):
        compress(folder)
    with pytest.raises(InvalidInput, match="--documents"):
        compress(folder, output=tmp_path / "new")


def test_a_folder_is_checked_before_the_search(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    with pytest.raises(InvalidInput, match="there is no folder"):
        compress(tmp_path / "none", output=tmp_path / "new")
    (folder / "documents.jsonl").write_text("{}")
    with pytest.raises(InvalidInput, match="the documents cannot be read"):
        compress(folder, output=tmp_path / "new")
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InvalidInput, match="Git LFS pointer"):
        compress(folder, output=tmp_path / "new")
