"""Models as tables: random logits that depend on the context, and greedy decoding by definition."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.divergence.metrics import Tokens

VOCABULARY = 5
END = 0

Table = Callable[[Tokens], NDArray[np.float64]]


def table(seed: int, *, strays: float = 0.0, ties: bool = True) -> Table:
    """Return a random model.

    With `ties` logits are whole numbers, so that many tokens share the greatest. In the share
    `strays` of contexts the logits differ from those of the model without `strays`.
    """

    @cache
    def logits(context: Tokens) -> NDArray[np.float64]:
        random = np.random.default_rng([seed, *context])
        drawn = random.uniform(0, 4, size=(2, VOCABULARY))
        row: NDArray[np.float64] = drawn[int(random.random() < strays)]
        return row.round() if ties else row

    return logits


def as_network(table: Table) -> Callable[[Tensor], Tensor]:
    """Return the table as a callable from tokens [B, T] to logits [B, T, V]."""

    def logits(tokens_BT: Tensor) -> Tensor:
        rows = [
            [table(tuple(text[: position + 1])) for position in range(len(text))]
            for text in tokens_BT.tolist()
        ]
        return torch.tensor(np.array(rows), dtype=torch.float32)

    return logits


def free_run(table: Table, prefix: Tokens, num_tokens: int) -> Tokens:
    """Return the greedy text by definition: always the first of the greatest logits."""
    text = prefix
    while len(text) - len(prefix) < num_tokens:
        row = table(text).tolist()
        text += (row.index(max(row)),)
        if text[-1] == END:
            break
    return text[len(prefix) :]
