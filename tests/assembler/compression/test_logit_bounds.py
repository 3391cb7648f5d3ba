"""Logits of few words and bounds for the others decide as the logits of all words would."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from assembler.compression.logit_bounds import LogitBounds
from engine.divergence.metrics import first_divergence

NUM_TEXTS, NUM_TOKENS, WIDTH, NUM_WORDS = 6, 20, 32, 1000


class CountingHead:
    """A head that counts the positions multiplied with the whole vocabulary."""

    def __init__(self, weight_VD: Tensor) -> None:
        self.weight_VD, self.num_positions = weight_VD, 0

    def __call__(self, inputs: Tensor) -> Tensor:
        self.num_positions += inputs.shape[:-1].numel()
        return inputs @ self.weight_VD.T


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def head() -> CountingHead:
    return CountingHead(drawn(NUM_WORDS, WIDTH, seed=1) / 4)


@pytest.fixture
def inputs_BSD() -> Tensor:
    return drawn(NUM_TEXTS, NUM_TOKENS, WIDTH, seed=2)


def moved(inputs_BSD: Tensor, share: float) -> Tensor:
    """Move each input by a share of its length, in a random direction."""
    directions = torch.nn.functional.normalize(drawn(*inputs_BSD.shape, seed=3), dim=-1)
    lengths_BS1: Tensor = inputs_BSD.norm(dim=-1, keepdim=True)
    return inputs_BSD + share * lengths_BS1 * directions


def by_all_words(head: CountingHead, inputs_BSD: Tensor, next_BS: Tensor) -> list[int]:
    predicted_BS = (inputs_BSD @ head.weight_VD.T).argmax(-1)
    return list(map(first_divergence, next_BS.tolist(), predicted_BS.tolist()))


def around(head: CountingHead, inputs_BSD: Tensor) -> tuple[LogitBounds, Tensor]:
    next_BS = (inputs_BSD @ head.weight_VD.T).argmax(-1)
    bounds = LogitBounds.of(head, head.weight_VD, next_BS, inputs_BSD)
    head.num_positions = 0
    return bounds, next_BS


@pytest.mark.parametrize("share", [0.0, 0.003, 0.03, 0.3, 3.0])
@pytest.mark.parametrize("rows", [range(NUM_TEXTS), [4, 0], [2]])
def test_the_first_divergence_equals_that_of_all_words(
    share: float, rows: Sequence[int], head: CountingHead, inputs_BSD: Tensor
) -> None:
    bounds, next_BS = around(head, inputs_BSD)
    moved_BSD = moved(inputs_BSD, share)[rows]
    expected = by_all_words(head, moved_BSD, next_BS[rows])
    assert bounds.first_divergences(moved_BSD, rows) == expected


def test_a_small_move_needs_all_words_at_few_positions(
    head: CountingHead, inputs_BSD: Tensor
) -> None:
    bounds, _ = around(head, inputs_BSD)
    bounds.first_divergences(moved(inputs_BSD, 0.01), range(NUM_TEXTS))
    assert head.num_positions < NUM_TEXTS * NUM_TOKENS / 10


def test_beyond_the_radius_all_words_are_used_until_the_divergence(
    head: CountingHead, inputs_BSD: Tensor
) -> None:
    bounds, _ = around(head, inputs_BSD)
    moved_BSD = moved(inputs_BSD, 0.05)
    fdts = bounds.first_divergences(moved_BSD, range(NUM_TEXTS))
    assert 0 < head.num_positions <= sum(fdts) + NUM_TEXTS


def test_the_argmax_of_equal_logits_is_the_lowest_id(
    head: CountingHead, inputs_BSD: Tensor
) -> None:
    head.weight_VD[NUM_WORDS // 2 :] = head.weight_VD[: NUM_WORDS // 2]
    bounds, next_BS = around(head, inputs_BSD)
    assert (next_BS < NUM_WORDS // 2).all()
    assert bounds.first_divergences(inputs_BSD, range(NUM_TEXTS)) == [NUM_TOKENS] * NUM_TEXTS
    twins = LogitBounds.of(head, head.weight_VD, next_BS + NUM_WORDS // 2, inputs_BSD)
    assert twins.first_divergences(inputs_BSD, range(NUM_TEXTS)) == [0] * NUM_TEXTS


def test_nan_diverges(head: CountingHead, inputs_BSD: Tensor) -> None:
    bounds, _ = around(head, inputs_BSD)
    moved_BSD = inputs_BSD.clone()
    moved_BSD[0, 5, 3] = torch.nan
    fdts = bounds.first_divergences(moved_BSD, range(NUM_TEXTS))
    assert fdts == [5] + [NUM_TOKENS] * (NUM_TEXTS - 1)


def test_a_vocabulary_may_be_smaller_than_the_kept_words() -> None:
    head = CountingHead(drawn(7, WIDTH, seed=1))
    inputs_BSD = drawn(2, 3, WIDTH, seed=2)
    bounds, next_BS = around(head, inputs_BSD)
    moved_BSD = moved(inputs_BSD, 0.5)
    assert bounds.first_divergences(moved_BSD, range(2)) == by_all_words(head, moved_BSD, next_BS)
