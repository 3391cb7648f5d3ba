"""Tensors are written to the blob store and read back."""

import pytest
import torch

from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.errors import NotFound


@pytest.mark.parametrize("dtype", tensors.DTYPE_NAMES)
def test_every_dtype_is_read_back(blobs: LocalBlobs, dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    entry = tensors.write(blobs, tensor)
    assert entry.num_bytes == blobs.size(entry.digest)
    assert torch.equal(tensors.read(blobs, entry), tensor)


def test_a_transposed_view_is_written_in_its_own_order(blobs: LocalBlobs) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(tensors.read(blobs, tensors.write(blobs, tensor)), tensor)


def test_writing_to_a_read_tensor_does_not_change_the_blob(blobs: LocalBlobs) -> None:
    entry = tensors.write(blobs, torch.zeros(4))
    tensors.read(blobs, entry).add_(1)
    assert torch.equal(tensors.read(blobs, entry), torch.zeros(4))


def test_load_yields_the_requested_names(blobs: LocalBlobs) -> None:
    entries = {name: tensors.write(blobs, torch.full((2,), i)) for i, name in enumerate("abc")}
    manifest = Manifest(config={}, tensors=entries)
    loaded = {name: tensor.tolist() for name, tensor in tensors.load(blobs, manifest, ["c", "a"])}
    assert loaded == {"c": [2, 2], "a": [0, 0]}


def test_a_missing_blob_raises_not_found(blobs: LocalBlobs) -> None:
    with pytest.raises(NotFound):
        tensors.read(blobs, TensorEntry("F32", (1,), "0" * 64))
