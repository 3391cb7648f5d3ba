"""W8A8 layers of the reference network: products of integers, scaled to floating point.

Source: AbsMax int8 as in Divergent Token Metrics (arXiv 2311.01544, on quantization), vector-wise
as in LLM.int8() (arXiv 2208.07339, section 2.1): one scale per output channel and one per token, as
in vLLM's int8 kernels. Letters at the end of a tensor's name: I inputs, O outputs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.compression.int8_units import LARGEST_WEIGHT, Target
from registry import cpu_features
from registry.checkpoints.int8_config import LARGEST


def quantize(rows: Tensor, *, largest: int = LARGEST) -> tuple[Tensor, Tensor]:
    """Round rows to integers up to `largest`; return them and each row's scale [..., 1].

    Both results are float32, and their product approximates `rows`. A row of zeros has scale 0.
    """
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True) / largest
    # Multiply by the inverse as vLLM's kernel does, which rounds a few ties differently. Where a
    # scale is zero, so are the values.
    return (rows * (1 / scales.where(scales > 0, 1))).round(), scales


class Int8Linear(nn.Module):
    """A linear layer with int8 weights that rounds its inputs to int8 at run time."""

    weight: Tensor
    weight_scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, bias: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        self.bias = bias
        weight_OI = torch.zeros(out_features, in_features, dtype=torch.int8)
        self.register_buffer("weight", weight_OI)
        self.register_buffer("weight_scale", torch.zeros(out_features, 1))

    @classmethod
    def of(cls, linear: nn.Linear, *, largest_weight: int) -> Self:
        """Return the int8 layer closest to `linear`, integers up to `largest_weight`."""
        with torch.device("meta"):
            layer = cls(linear.in_features, linear.out_features, bias=linear.bias)
        integers, layer.weight_scale = quantize(linear.weight, largest=largest_weight)
        layer.weight = integers.to(torch.int8)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., I] to outputs [..., O] in the inputs' dtype."""
        integers, scales = quantize(x)
        sums = _sums_of_products(integers, self.weight)
        y = (sums * scales * self.weight_scale.mT).to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)


def _sums_of_products(integers: Tensor, weight_OI: Tensor) -> Tensor:
    """Multiply integers [..., I] by the weight and return [..., O], exact up to 2^24 in float32."""
    if integers.device.type != "cpu" or not cpu_features.multiplies_int8():
        return F.linear(integers, weight_OI.float())
    # Nine times as fast as float32 on a processor with VNNI. torch has no public name for this
    # product.
    sums_TO = torch._int_mm(integers.flatten(0, -2).to(torch.int8), weight_OI.mT)
    return sums_TO.view(*integers.shape[:-1], len(weight_OI))


@contextmanager
def as_int8(network: nn.Module, modules: Iterable[str], *, target: Target) -> Iterator[None]:
    """Compute the given linear layers of `network` in int8 for the length of the block."""
    originals = {name: cast(nn.Linear, network.get_submodule(name)) for name in modules}
    for name, linear in originals.items():
        network.set_submodule(name, Int8Linear.of(linear, largest_weight=LARGEST_WEIGHT[target]))
    try:
        yield
    finally:
        for name, linear in originals.items():
            network.set_submodule(name, linear)
