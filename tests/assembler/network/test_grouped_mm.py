"""Grouped matrix products equal the loop over groups that defines them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.network.grouped_mm import grouped_linear

COUNTS = [5, 0, 16, 3]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card"),
        ],
    ),
]


def random_inputs(device: str, *, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Return rows [S, I] and one weight [O, I] per group, all with gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(device, dtype).requires_grad_()

    return draw(sum(COUNTS), 32), [draw(64, 32) for _ in COUNTS]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_result_and_gradients_equal_a_loop_over_groups(
    device: str, dtype: torch.dtype, error: float
) -> None:
    x_SI, weights = random_inputs(device, dtype=dtype)
    counts_G = torch.tensor(COUNTS, device=device)
    pairs = zip(torch.split(x_SI, COUNTS), weights, strict=True)
    expected = torch.cat([F.linear(rows, weight) for rows, weight in pairs])
    inputs = [x_SI, *weights]
    result = grouped_linear(x_SI, weights, counts_G)
    torch.testing.assert_close(result, expected, rtol=error, atol=error)
    # The weight of an empty group has a gradient too: zeros.
    gradients, expected_gradients = (
        torch.autograd.grad(y.float().square().sum(), inputs) for y in (result, expected)
    )
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        scale = other.abs().max().item() + 1
        torch.testing.assert_close(gradient, other, rtol=error, atol=error * scale)
