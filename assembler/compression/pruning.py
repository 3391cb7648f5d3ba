"""Set the smallest weights of matrices to zero: in a network for a while, or in the store.

Source: Divergent Token Metrics (arXiv 2311.01544, section on sparsification): inside a component
the magnitude decides, and a weight that is zero stays zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from engine.compression.sparsity_components import Shares
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import TensorEntry


def pruned(weight: Tensor, share: float) -> Tensor:
    """Return the tensor with this share of its numbers set to zero, rounded to a whole number.

    The smallest magnitudes become zero; of equal ones the first. A number that is zero at one share
    is zero at every larger share.
    """
    flat = weight.detach().reshape(-1)
    count = round(share * flat.numel())
    if count == 0:
        return weight.detach().clone()
    magnitudes = flat.float().abs()
    threshold = magnitudes.kthvalue(count).values
    kept = magnitudes > threshold
    # Of the numbers at the threshold, only the missing count becomes zero.
    equal = (magnitudes == threshold).nonzero()[:, 0]
    num_smaller = flat.numel() - int(kept.sum()) - len(equal)
    kept[equal[count - num_smaller :]] = True
    return flat.where(kept, 0).view_as(weight)


@contextmanager
def as_pruned(network: nn.Module, shares: Shares) -> Iterator[None]:
    """Prune these linear layers of the network inside the `with` block."""
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
    """Return the number of zeros in the weight of a linear layer."""
    weight = cast(nn.Linear, network.get_submodule(name)).weight
    return weight.numel() - int(torch.count_nonzero(weight))


def store(blobs: BlobStore, weight: Tensor, share: float) -> TensorEntry:
    """Prune the tensor, store it and return its entry. Raises OutOfSpace."""
    return tensors.write(blobs, pruned(weight, share), sparse=True)
