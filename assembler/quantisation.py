"""W8A8 in the reference network: integers multiplied by integers, with scales around them.

Source: AbsMax int8 as in Divergent Token Metrics (arXiv 2311.01544, on quantisation), of vectors as
in LLM.int8() (arXiv 2208.07339, section 2.1): a scale for each output channel and each token, which
is what vLLM's int8 kernels have. Letters at the end of a tensor's name: I inputs, O outputs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.compression import LARGEST_WEIGHT, Target
from registry.quantisation import LARGEST


def quantise(rows: Tensor, *, largest: int = LARGEST) -> tuple[Tensor, Tensor]:
    """Whole numbers, none beyond `largest`, and the scale [..., 1] of each row that they are to be
    multiplied by; both float32. A row of zeros has scale 0."""
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True) / largest
    # Multiplied by the inverse as vLLM's kernel does, which rounds a few ties elsewhere. Where a
    # scale is zero, so is what is multiplied.
    return (rows * (1 / scales.where(scales > 0, 1))).round(), scales


class Int8Linear(nn.Module):
    """A linear layer with int8 weights whose inputs are rounded to int8 as they come.

    The integers are kept in a float dtype: products of theirs are whole numbers, which float32 adds
    up exactly to 2^24, so this is what an integer kernel computes.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_features, in_features))
        self.register_buffer("weight_scale", torch.zeros(out_features, 1))

    @classmethod
    def of(cls, weight_OI: Tensor, *, largest_weight: int) -> Self:
        """The layer whose weight comes nearest to this one, integers up to `largest_weight`."""
        with torch.device("meta"):
            made = cls(weight_OI.shape[1], weight_OI.shape[0])
        made.weight, made.weight_scale = quantise(weight_OI, largest=largest_weight)
        return made

    def forward(self, x: Tensor) -> Tensor:
        integers, scales = quantise(x)
        products = F.linear(integers, self.weight.float())
        return (products * scales * self.weight_scale.mT).to(x.dtype)


@contextmanager
def as_int8(network: nn.Module, modules: Iterable[str], *, target: Target) -> Iterator[None]:
    """The network with these linear layers in int8, for the length of the block."""
    before = {name: cast(nn.Linear, network.get_submodule(name)) for name in modules}
    for name, linear in before.items():
        network.set_submodule(
            name, Int8Linear.of(linear.weight, largest_weight=LARGEST_WEIGHT[target])
        )
    try:
        yield
    finally:
        for name, linear in before.items():
            network.set_submodule(name, linear)
