"""What an owner gives is told apart: a model, an adapter, a GGUF file.

Covers: gguf_file.
"""

from pathlib import Path

import pytest

from registry.errors import InvalidInput
from registry.ingest import own_imports
from tests import tiny, tiny_adapters, tiny_gguf


def test_a_model_is_not_imported(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "model")
    tiny_gguf.write(folder / "tiny.gguf")
    assert own_imports.read(folder) is None
    assert own_imports.read(tmp_path / "missing") is None


def test_an_adapter_is_announced(tmp_path: Path) -> None:
    read = own_imports.read(tiny_adapters.write(tmp_path))
    assert read is not None
    assert set(read.announcement) == {"adapter"}


def test_a_gguf_file_is_announced_by_itself_and_by_its_folder(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    read = own_imports.read(path)
    assert read is not None
    assert read == own_imports.read(tmp_path)
    announced = read.announcement["gguf"]
    assert announced["size"] == path.stat().st_size
    assert announced["metadata"]["general.architecture"] == "llama"
    assert "tokenizer.ggml.tokens" not in announced["metadata"]
    assert announced["tensors"]["token_embd.weight"] == {"type": "BF16", "shape": [64, 32]}


def test_one_of_several_files_must_be_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        tiny_gguf.write(tmp_path / name)
    with pytest.raises(InvalidInput, match=r"has 2 GGUF files \(a\.gguf, b\.gguf\)"):
        own_imports.read(tmp_path)
