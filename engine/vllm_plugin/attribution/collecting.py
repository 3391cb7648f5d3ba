"""Rows on their way from the engine into the answer of one HTTP request."""

from collections import defaultdict, deque
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.rows import Rows

Kind = Literal["prompt", "completion"]


class Collector:
    """Keeps the rows of one HTTP request, by choice, until they are sent.

    `sums` are the rows of all its choices together, averaged over blocks.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.prompts: dict[int, Rows] = {}
        self.rows: dict[int, deque[NDArray[Any]]] = defaultdict(deque)
        self.sums: dict[Kind, NDArray[Any]] = {}

    def add(self, choice: int, *, prompt: Rows, written: Rows) -> None:
        """Keep rows [n, M] or [n, L, M] of a choice; those of its prompt come first."""
        if self.asked.prompt and choice not in self.rows:
            self.prompts[choice] = prompt
        self.rows[choice].extend(written)

    def count(self, kind: Kind, sum_M: NDArray[Any]) -> None:
        """Add what the experts weighed in tokens."""
        self.sums[kind] = self.sums.get(kind, np.zeros_like(sum_M)) + sum_M

    def take(self, choice: int, most: int) -> list[NDArray[Any]]:
        """Take the next rows of a choice, at most so many."""
        rows = self.rows[choice]
        return [rows.popleft() for _ in range(min(most, len(rows)))]


# Of the HTTP request that this task answers.
current: ContextVar[Collector | None] = ContextVar("nexus", default=None)
