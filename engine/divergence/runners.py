"""The interface of a model under comparison, wherever it runs."""

from collections.abc import Sequence
from typing import Protocol

from engine.divergence.metrics import Continuation, Reading, Tokens


class Runner(Protocol):
    """A model that writes and reads texts.

    A reference writes and a candidate reads. The reference also reads when its noise is measured.
    Prefixes and continuations may differ in length; results keep their order.
    """

    def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
        """Continue each prefix greedily, with margins, by `num_tokens` or to its end of text."""

    def read(self, continuations: Sequence[Continuation]) -> list[Reading]:
        """Return the predictions at every token of each continuation, read teacher-forced."""
