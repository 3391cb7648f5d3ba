"""What the noise floor varies, and that the worst of it counts."""

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
    assert [own[:2] for own in others] == [(3, [4, 3, 2]), (2, [1, 0])]
    assert {own[2] for own in others}.isdisjoint({usual[2]})
    assert torch.get_num_threads() == usual[2]
    # A table has no noise, and the order of the texts is theirs again.
    assert readings[noise.IN_ONE_PASS] == readings[noise.OTHERWISE_BATCHED]


def test_the_floor_is_the_worst_of_each_text() -> None:
    texts = [Continuation((0,), (1, 1))] * 2
    same, strays = Reading((1, 1), (0.0, 0.0)), Reading((2, 1), (0.0, 0.0))
    varied: dict[str, Sequence[Reading]] = {
        noise.IN_ONE_PASS: [same, strays],
        "b": [strays, same],
    }
    assert noise.floor(texts, varied).fdt.mean == 0


def test_of_the_floor_log_probabilities_are_as_far_apart_as_in_the_worst_variation() -> None:
    texts = [Continuation((0,), (1, 1))]
    same, strays = Reading((1, 1), (0.0, 0.0)), Reading((2, 1), (0.0, -0.1))
    apart = Reading((1, 1), (-0.2, -0.2))
    varied: dict[str, Sequence[Reading]] = {
        noise.IN_ONE_PASS: [same],
        "of other tokens": [strays],
        "of other numbers": [apart],
    }
    assert noise.floor(texts, varied).logprob_difference == pytest.approx(0.2)
