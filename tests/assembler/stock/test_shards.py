"""Tensors are divided over files of a limited size."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from assembler.stock import shards
from assembler.stock.tensors import StockTensor
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints.manifests import TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.errors import NotFound


def stored(blobs: LocalBlobs, *values: float) -> StockTensor:
    digest = put_bytes(blobs, np.array(values, np.float32).tobytes())
    return StockTensor(TensorEntry("F32", (len(values),), digest))


def computed(*values: float) -> StockTensor:
    def compute(_: object) -> Floats:
        return np.array(values, np.float32)

    return StockTensor(TensorEntry("F32", (len(values),), digest=""), compute)


def test_what_fits_is_one_file_without_an_index(blobs: LocalBlobs, tmp_path: Path) -> None:
    tensors = {"b": stored(blobs, 1, 2), "a": computed(3)}
    [(name, file)] = shards.files(tensors, max_bytes=12).items()
    assert name == "model.safetensors"
    heard: list[int] = []
    file.write(tmp_path / name, blobs, on_bytes=heard.append)

    assert (tmp_path / name).stat().st_size == file.size == sum(heard)
    read = load_file(tmp_path / name)
    assert {name: values.tolist() for name, values in read.items()} == {"a": [3], "b": [1, 2]}


def test_files_are_filled_in_order_and_indexed() -> None:
    tensors = {"a": computed(1, 2), "large": computed(*range(9)), "b": computed(1), "c": computed()}
    files = shards.files(tensors, max_bytes=12)
    assert {name: list(file.tensors) for name, file in files.items()} == {
        "model-00001-of-00003.safetensors": ["a"],
        "model-00002-of-00003.safetensors": ["large"],
        "model-00003-of-00003.safetensors": ["b", "c"],
    }
    index = shards.index(files)
    assert index["metadata"] == {"total_size": 48}
    assert index["weight_map"]["c"] == "model-00003-of-00003.safetensors"
    assert list(index["weight_map"]) == list(tensors)


def test_a_large_tensor_is_computed_once(blobs: LocalBlobs, tmp_path: Path) -> None:
    num_calls = 0

    def compute(_: object) -> Floats:
        nonlocal num_calls
        num_calls += 1
        return np.zeros(4_000_000, np.float32)

    tensor = StockTensor(TensorEntry("F32", (4_000_000,), digest=""), compute)
    [(name, file)] = shards.files({"a": tensor}, max_bytes=10**9).items()
    file.write(tmp_path / name, blobs, on_bytes=lambda _: None)
    assert num_calls == 1


def test_a_lost_blob_is_named(blobs: LocalBlobs, tmp_path: Path) -> None:
    lost = StockTensor(TensorEntry("F32", (1,), "0" * 64))
    [(name, file)] = shards.files({"a": lost}, max_bytes=12).items()
    with pytest.raises(NotFound):
        file.write(tmp_path / name, blobs, on_bytes=lambda _: None)
