"""Matrices whose smallest weights are zero: in a network for a while, or stored.

Source: Divergent Token Metrics (arXiv 2311.01544, on sparsification): inside a component magnitude
decides, and what is zero stays zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from engine.compression.sparsity_components import Shares
from engine.vllm_plugin import tensors
from registry.blobs import BlobStore
from registry.manifests import TensorEntry


def pruned(weight: Tensor, share: float) -> Tensor:
    """The tensor with this share of its numbers zero, to the nearest whole number of them: those of
    smallest magnitude, of equals the first. What is zero at one share is so at any larger one."""
    flat = weight.detach().reshape(-1)
    count = round(share * flat.numel())
    if count == 0:
        return weight.detach().clone()
    magnitudes = flat.float().abs()
    threshold = magnitudes.kthvalue(count).values
    kept = magnitudes > threshold
    # Of those at the threshold only as many go as are wanted.
    equal = (magnitudes == threshold).nonzero()[:, 0]
    num_smaller = flat.numel() - int(kept.sum()) - len(equal)
    kept[equal[count - num_smaller :]] = True
    return flat.where(kept, 0).view_as(weight)


@contextmanager
def as_pruned(network: nn.Module, shares: Shares) -> Iterator[None]:
    """The network with these linear layers pruned, for the length of the block."""
    linears = {name: cast(nn.Linear, network.get_submodule(name)) for name in shares}
    before = {name: linear.weight for name, linear in linears.items()}
    for name, linear in linears.items():
        linear.weight = nn.Parameter(pruned(linear.weight, shares[name]), requires_grad=False)
    try:
        yield
    finally:
        for name, linear in linears.items():
            linear.weight = before[name]


def num_zeros(network: nn.Module, name: str) -> int:
    """Of the weight of a linear layer."""
    weight = cast(nn.Linear, network.get_submodule(name)).weight
    return weight.numel() - int(torch.count_nonzero(weight))


def store(blobs: BlobStore, weight: Tensor, share: float) -> TensorEntry:
    """The tensor, pruned and stored. Raises OutOfSpace."""
    return tensors.write(blobs, pruned(weight, share), sparse=True)
