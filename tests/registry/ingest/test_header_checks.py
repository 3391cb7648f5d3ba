"""Sources of experts are checked by their headers alone, whatever they are."""

import os
from pathlib import Path

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.errors import Incompatible, InvalidInput
from registry.ingest import header_checks
from registry.ingest.fitting import Seed
from tests import tiny, tiny_adapters, tiny_gguf


@pytest.fixture
def seed(blobs: LocalBlobs) -> Seed:
    tokenizer = tiny.tokenizer_files()["tokenizer.json"]
    return Seed(manifest=tiny.store_manifest(blobs), read_tokenizer=lambda: tokenizer)


def without_weights(path: Path, header_size: int) -> None:
    """Leave the header of a file, and a hole in the place of its weights."""
    size = path.stat().st_size
    os.truncate(path, header_size)
    os.truncate(path, size)


def test_what_fits_is_taken_without_its_weights(seed: Seed, tmp_path: Path) -> None:
    model = tiny.write_checkpoint(tmp_path / "model", expert=1)
    without_weights(model / "model.safetensors", 8 + len(tiny.safetensors_header(expert=1)))
    adapter = tiny_adapters.write(tmp_path / "adapter")
    gguf = tiny_gguf.write(tmp_path / "tiny.gguf")
    for path in (model, adapter, gguf):
        header_checks.check(path, seed)


def test_what_does_not_fit_is_refused(seed: Seed, tmp_path: Path) -> None:
    adapter = tiny_adapters.write(tmp_path / "adapter", r=8)
    gguf = tiny_gguf.write(tmp_path / "tiny.gguf", head_count=2)
    for path in (adapter, gguf, tmp_path):
        with pytest.raises(InvalidInput):
            header_checks.check(path, seed)


def test_words_of_a_gguf_file_are_compared(seed: Seed, tmp_path: Path) -> None:
    words = tiny_gguf.tokens()
    words[7:9] = words[8], words[7]
    path = tiny_gguf.write(tmp_path / "tiny.gguf", words=words)
    with pytest.raises(Incompatible, match="another vocabulary"):
        header_checks.check(path, seed)
