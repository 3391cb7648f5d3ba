"""int8 in the reference network: rounding to integers, and linear layers."""

import pytest
import torch
from torch import nn

from assembler.network.int8_linear import Int8Linear, quantize
from registry import cpu_features


def test_rows_are_rounded_to_integers_with_their_own_scale() -> None:
    rows = torch.tensor([[-2.0, 1.0, 0.5], [0.0, 0.0, 0.0], [1e-6, 3e-6, -3e-6]])
    integers, scales = quantize(rows)
    assert integers.tolist() == [[-127, 64, 32], [0, 0, 0], [42, 127, -127]]
    assert (integers * scales - rows).abs().le(scales / 2 + 1e-12).all()


def of_weight(weight_OI: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight_OI)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear.requires_grad_(False)


def test_a_bias_is_added_in_full_precision() -> None:
    weight, bias = torch.randn(8, 16), torch.randn(8)
    plain = Int8Linear.of(of_weight(weight), largest_weight=127)
    biased = Int8Linear.of(of_weight(weight, bias), largest_weight=127)
    x = torch.randn(3, 16)
    torch.testing.assert_close(biased(x), plain(x) + bias)


@pytest.mark.parametrize("multiplies_int8", [True, False])
@pytest.mark.parametrize("shape", [(7, 96), (2, 3, 96), (0, 96)])
def test_a_layer_equals_integer_arithmetic(
    shape: tuple[int, ...], multiplies_int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a processor without VNNI, which sums in float32."""
    if multiplies_int8 and not cpu_features.multiplies_int8():
        pytest.skip("this processor has no VNNI")
    monkeypatch.setattr(cpu_features, "multiplies_int8", lambda: multiplies_int8)
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 96, generator=generator), torch.randn(shape, generator=generator)
    linear = Int8Linear.of(of_weight(weight), largest_weight=127)
    integers, scales = quantize(x)
    sums = integers.to(torch.int32) @ linear.weight.to(torch.int32).mT
    expected = sums.double() * scales.double() * linear.weight_scale.mT.double()
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(linear(x), x @ weight.mT, rtol=0, atol=0.5)
