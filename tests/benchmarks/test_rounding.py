"""AbsMax keeps the largest number of a row and changes none by more than half a level."""

import pytest
import torch
from torch import nn

from tests.benchmarks.rounding import LEVELS, absmax, round_matrices


def test_no_number_changes_by_more_than_half_a_level() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    rounded = absmax(weight)
    level = weight.abs().amax(-1, keepdim=True) / LEVELS
    assert ((rounded - weight).abs() <= level / 2 + 1e-6).all()
    assert rounded.abs().amax(-1).tolist() == pytest.approx(weight.abs().amax(-1).tolist())
    assert all(len(row.unique()) <= 2 * LEVELS + 1 for row in rounded)


def test_a_row_of_zeros_is_kept() -> None:
    assert absmax(torch.zeros(2, 3)).tolist() == torch.zeros(2, 3).tolist()


def test_vectors_are_not_rounded() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.123, 1.0, 0.777, 0.5]))
    before = layer.bias.tolist()
    round_matrices(layer)
    assert layer.bias.tolist() == before
