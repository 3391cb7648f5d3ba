"""The norm and its gradient equal the definition and the gradient that autograd derives from it."""

import pytest
import torch
from torch import Tensor

from assembler.network.rms_norm import RMSNorm

EPS = 1e-5


def by_definition(x: Tensor, weight: Tensor) -> Tensor:
    x_float = x.float()
    scale = torch.rsqrt(x_float.square().mean(-1, keepdim=True) + EPS)
    return weight * (x_float * scale).to(x.dtype)


@pytest.mark.parametrize(
    ("dtype", "weight_dtype", "error"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.bfloat16, 2e-2),
        (torch.bfloat16, torch.float32, 2e-2),
    ],
)
@pytest.mark.parametrize("trains", [True, False], ids=["trained", "frozen"])
def test_norm_and_gradients_equal_the_definition(
    trains: bool, dtype: torch.dtype, weight_dtype: torch.dtype, error: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 48, generator=generator).to(dtype).requires_grad_()
    norm = RMSNorm(48, EPS).to(weight_dtype).requires_grad_(trains)
    norm.weight.data.normal_(generator=generator)
    y, expected = norm(x), by_definition(x, norm.weight)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    upstream = torch.randn(y.shape, generator=generator).to(y.dtype)
    inputs = [x, norm.weight] if trains else [x]
    for gradient, other in zip(
        torch.autograd.grad(y, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert gradient.dtype == other.dtype
        torch.testing.assert_close(gradient, other, rtol=error, atol=error)
