"""The smallest numbers become zero, temporarily in a network and permanently in the store."""

import pytest
import torch

from assembler.compression.pruning import as_pruned, pruned, store
from assembler.network.model import Network
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from tests import tiny

UP = "model.layers.1.mlp.up_proj"


def test_the_smallest_numbers_become_zero() -> None:
    weight = torch.tensor([[3.0, -1.0, 0.5], [-4.0, 2.0, -0.25]])
    assert pruned(weight, 0.5).tolist() == [[3.0, 0.0, 0.0], [-4.0, 2.0, 0.0]]
    assert pruned(weight, 0.0).tolist() == weight.tolist()
    assert not pruned(weight, 1.0).any()


def test_the_first_of_equal_numbers_become_zero() -> None:
    weight = torch.tensor([1.0, -1.0, 1.0, 1.0, 2.0])
    assert pruned(weight, 0.4).tolist() == [0.0, 0.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_zeros_stay_zero(dtype: torch.dtype) -> None:
    """Many numbers may be equal, as in bfloat16, and a pruned tensor may be pruned again."""
    weight = torch.randn((40, 30), generator=torch.Generator().manual_seed(1)).to(dtype)
    before = weight
    for number in range(1, 11):
        again = pruned(before, number / 10)
        assert int((again == 0).sum()) == 120 * number
        assert torch.equal(again, pruned(weight, number / 10))
        before = again


def test_a_network_is_pruned_temporarily(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(tiny.store_manifest(blobs), blobs, dtype=torch.float32)
    weight = network.state_dict()[UP + ".weight"]
    with as_pruned(network, {UP: 0.25}):
        assert torch.equal(network.state_dict()[UP + ".weight"], pruned(weight, 0.25))
    assert torch.equal(network.state_dict()[UP + ".weight"], weight)


@pytest.mark.parametrize(("share", "is_sparse"), [(0.03, False), (0.4, True), (1.0, True)])
def test_a_pruned_tensor_keeps_its_dtype(share: float, is_sparse: bool, blobs: LocalBlobs) -> None:
    entry = tiny.store_manifest(blobs).tensors[UP + ".weight"]
    made = store(blobs, tensors.read(blobs, entry), share)
    assert (made.num_nonzero is not None) == is_sparse
    assert (made.dtype, made.shape) == (entry.dtype, entry.shape)
    assert torch.equal(tensors.read(blobs, made), pruned(tensors.read(blobs, entry), share))
