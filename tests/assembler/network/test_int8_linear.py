"""int8 in the reference network: rounding to integers, and linear layers."""

import pytest
import torch

from assembler.network.int8_linear import Int8Linear, quantize
from registry import cpu_features


def test_rows_are_rounded_to_integers_with_their_own_scale() -> None:
    rows = torch.tensor([[-2.0, 1.0, 0.5], [0.0, 0.0, 0.0], [1e-6, 3e-6, -3e-6]])
    integers, scales = quantize(rows)
    assert integers.tolist() == [[-127, 64, 32], [0, 0, 0], [42, 127, -127]]
    assert (integers * scales - rows).abs().le(scales / 2 + 1e-12).all()


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
    linear = Int8Linear.of(weight, largest_weight=127)
    integers, scales = quantize(x)
    sums = integers.to(torch.int32) @ linear.weight.to(torch.int32).mT
    expected = sums.double() * scales.double() * linear.weight_scale.mT.double()
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(linear(x), x @ weight.mT, rtol=0, atol=0.5)
