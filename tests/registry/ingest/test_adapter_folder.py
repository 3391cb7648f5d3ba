"""Tests of reading an adapter's folder on an owner's disk."""

from pathlib import Path

import pytest

from registry.errors import InvalidCheckpoint, InvalidInput
from registry.ingest.adapter_folder import AdapterFolder, is_adapter
from tests import tiny, tiny_adapters


def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    assert is_adapter(tiny_adapters.write(tmp_path / "adapter"))
    assert not is_adapter(tiny.write_checkpoint(tmp_path / "model"))
    # A model beside which its adapter was left is a model.
    assert not is_adapter(tiny_adapters.write(tmp_path / "model"))


def test_tensors_and_files_are_announced(tmp_path: Path) -> None:
    folder = tiny_adapters.write(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    read = AdapterFolder.read(folder)

    assert set(read.announcement["files"]) == {"chat_template.jinja"}
    source = read.sources[read.announcement["digest"]]
    assert source.path == folder / "adapter_model.safetensors"
    assert read.announcement["weights"]["size"] == source.num_bytes
    assert len(read.sources) == 2


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    folder = tiny_adapters.write(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidInput, match="a pickle, which can run code"):
        AdapterFolder.read(folder)


def test_a_config_is_refused_before_bytes_are_read(tmp_path: Path) -> None:
    folder = tiny_adapters.write(tmp_path, peft_type="VERA")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InvalidCheckpoint, match="config is refused"):
        AdapterFolder.read(folder)
