"""What a comparison needs of a model, wherever it runs."""

from collections.abc import Sequence
from typing import Protocol

from engine.divergence.metrics import Continuation, Reading, Tokens


class Runner(Protocol):
    """Two verbs. A reference writes, a candidate reads; to learn its noise a reference reads too.

    Prefixes and continuations may have different lengths; answers keep their order.
    """

    def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
        """Continue each prefix greedily, up to `num_tokens` or its end of text, with margins."""

    def read(self, continuations: Sequence[Continuation]) -> list[Reading]:
        """What it predicts at every token of each continuation, read teacher-forced."""
