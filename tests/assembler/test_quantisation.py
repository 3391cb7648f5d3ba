"""int8 in the reference network: whole numbers, and what layers compute with them."""

import torch

from assembler.quantisation import Int8Linear, quantise


def test_rows_are_whole_numbers_of_their_own_scale() -> None:
    rows = torch.tensor([[-2.0, 1.0, 0.5], [0.0, 0.0, 0.0], [1e-6, 3e-6, -3e-6]])
    integers, scales = quantise(rows)
    assert integers.tolist() == [[-127, 64, 32], [0, 0, 0], [42, 127, -127]]
    assert (integers * scales - rows).abs().le(scales / 2 + 1e-12).all()


def test_a_layer_computes_what_integers_would() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 96, generator=generator), torch.randn(7, 96, generator=generator)
    linear = Int8Linear.of(weight, largest_weight=127)
    integers, scales = quantise(x)
    sums = integers.to(torch.int32) @ linear.weight.to(torch.int32).mT
    expected = sums.double() * scales.double() * linear.weight_scale.mT.double()
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(linear(x), x @ weight.mT, rtol=0, atol=0.5)
