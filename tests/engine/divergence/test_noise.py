"""What the noise floor varies, and that the worst variation counts."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading, Tokens
from engine.divergence.torch_runner import TorchRunner
from tests.engine.divergence.tables import as_network, table

PREFIXES: list[Tokens] = [(token,) for token in range(5)]


def test_everything_but_the_network_is_varied() -> None:
    seen: list[tuple[int, list[int], int]] = []
    network = as_network(table(1))

    def logits(tokens_BT: Tensor) -> Tensor:
        seen.append((len(tokens_BT), tokens_BT[:, 0].tolist(), torch.get_num_threads()))
        return network(tokens_BT)

    runner = TorchRunner(logits)
    texts = runner.write(PREFIXES, num_tokens=4)
    seen.clear()
    readings = noise.variations(runner, texts)
    (usual, *others) = seen
    assert usual[:2] == (5, [0, 1, 2, 3, 4])
    assert [call[:2] for call in others] == [(3, [4, 3, 2]), (2, [1, 0])]
    assert {call[2] for call in others}.isdisjoint({usual[2]})
    assert torch.get_num_threads() == usual[2]
    # A table has no noise, and the texts are in their original order again.
    assert readings[noise.IN_ONE_PASS] == readings[noise.OTHERWISE_BATCHED]


def test_floor_takes_the_worst_reading_of_each_text() -> None:
    texts = [Continuation((0,), (1, 1))] * 2
    same, strays = Reading((1, 1), (0.0, 0.0)), Reading((2, 1), (0.0, 0.0))
    variations: dict[str, Sequence[Reading]] = {
        noise.IN_ONE_PASS: [same, strays],
        "b": [strays, same],
    }
    assert noise.floor(texts, variations).fdt.mean == 0


def test_floor_takes_the_largest_logprob_difference_of_all_variations() -> None:
    texts = [Continuation((0,), (1, 1))]
    same, strays = Reading((1, 1), (0.0, 0.0)), Reading((2, 1), (0.0, -0.1))
    other = Reading((1, 1), (-0.2, -0.2))
    variations: dict[str, Sequence[Reading]] = {
        noise.IN_ONE_PASS: [same],
        "of other tokens": [strays],
        "of other numbers": [other],
    }
    assert noise.floor(texts, variations).logprob_difference == pytest.approx(0.2)
