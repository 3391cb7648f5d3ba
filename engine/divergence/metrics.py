"""Divergent token metrics of one prefix: how far a candidate diverges from its reference's text.

Source: Divergent Token Metrics (arXiv 2311.01544), section 3. The reference continues a prefix
greedily. The candidate reads that text once, teacher-forced. FDT, the first divergent token, is
then the same number that two free greedy runs would give; SDT and DPPL are defined on it.

The paper leaves two points open, which are decided here. Ties: of tokens that share the greatest
logit, the lowest id is the argmax, for writers and readers alike. End of text: a continuation that
ends by itself keeps its end-of-text token, which the candidate must predict too. The paper's N - n
is then the length of that continuation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]

# Keeps perplexities, their sums and their ratios finite, hence storable. A candidate that reaches
# this bound is useless anyway.
_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True)
class Continuation:
    """The greedy continuation `tokens` of `prefix` by the reference; both are token ids.

    `margins` holds for each token the difference in nats between its logit and the runner-up's when
    it was written; empty where unknown.
    """

    prefix: Tokens
    tokens: Tokens
    margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A model's predictions while it read a continuation, one entry per token.

    `predicted` are the argmax tokens. `logprobs` (nats) are the log-probabilities of the
    continuation's own tokens.
    """

    predicted: Tokens
    logprobs: tuple[float, ...]

    @classmethod
    def of_logits(cls, logits_TV: NDArray[Any], tokens: Sequence[int]) -> Self:
        """Return the reading of T `tokens`, given the logits [T, V] that predict each of them."""
        logits_TV = np.asarray(logits_TV, np.float64)
        assert len(logits_TV) == len(tokens)
        top_T = logits_TV.max(-1)
        logsumexp_T = top_T + np.log(np.exp(logits_TV - top_T[:, None]).sum(-1))
        target_T = logits_TV[np.arange(len(tokens)), list(tokens)]
        # NumPy's argmax returns the first of equals, which is our rule for ties.
        predicted = logits_TV.argmax(-1).tolist()
        return cls(tuple(predicted), tuple((target_T - logsumexp_T).tolist()))


@dataclass(frozen=True)
class Divergence:
    """The divergence of one prefix: FDT and SDT in tokens, DPPL as a perplexity per token."""

    fdt: int
    sdt: int
    dppl: float


def first_divergence(tokens: Sequence[int], predicted: Sequence[int]) -> int:
    """Return FDT: the number of equal tokens before the first difference, or all."""
    pairs = enumerate(zip(tokens, predicted, strict=True))
    return next((i for i, (token, other) in pairs if token != other), len(tokens))


def num_divergences(tokens: Sequence[int], predicted: Sequence[int]) -> int:
    """Return SDT: the number of corrections that keep the candidate on the reference's path."""
    return sum(token != other for token, other in zip(tokens, predicted, strict=True))


def perplexity(logprobs: Sequence[float]) -> float:
    """Return exp of the mean negative log-likelihood: 1 for no text, finite for NaN."""
    if not logprobs:
        return 1.0
    exponent = -math.fsum(logprobs) / len(logprobs)
    return math.exp(exponent if exponent < _LARGEST_EXPONENT else _LARGEST_EXPONENT)


def logprob_difference(readings: Sequence[Reading], expected: Sequence[Reading]) -> float:
    """Return the mean absolute difference of log-probabilities on the same texts, in nats.

    It detects changes that move no argmax, such as a router in fewer digits. Huge but finite for
    NaN.
    """
    differences = [
        abs(logprob - expected_logprob)
        for reading, expected_reading in zip(readings, expected, strict=True)
        for logprob, expected_logprob in zip(
            reading.logprobs, expected_reading.logprobs, strict=True
        )
    ]
    mean = math.fsum(differences) / max(1, len(differences))
    return mean if mean < _LARGEST_EXPONENT else _LARGEST_EXPONENT


def compare(continuation: Continuation, reading: Reading) -> Divergence:
    """Return FDT, SDT and DPPL of one reading. Always `sdt <= len(tokens) * log2(dppl)`."""
    assert len(reading.logprobs) == len(continuation.tokens)
    return Divergence(
        fdt=first_divergence(continuation.tokens, reading.predicted),
        sdt=num_divergences(continuation.tokens, reading.predicted),
        dppl=perplexity(reading.logprobs),
    )


def worst(continuation: Continuation, readings: Sequence[Reading]) -> Reading:
    """Return the reading that diverges soonest; among equals, the one that diverges most often."""

    def distance(reading: Reading) -> tuple[int, int, float]:
        divergence = compare(continuation, reading)
        return divergence.fdt, -divergence.sdt, -divergence.dppl

    return min(readings, key=distance)
