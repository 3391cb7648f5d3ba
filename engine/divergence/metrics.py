"""Divergent token metrics of one prefix: how far a candidate strays from its reference's text.

Source: Divergent Token Metrics (arXiv 2311.01544), section 3. The reference continues a prefix
greedily; the candidate reads that text once, teacher-forced. FDT, the first divergent token, is
then the same number that two free greedy runs would give; SDT and DPPL are defined on it.

Two things the paper leaves open are decided here. Ties: of tokens that share the greatest logit
the lowest id is the argmax, for whoever writes and whoever reads. End of text: a continuation that
ends by itself keeps its end-of-text token, which a candidate must predict too, and the paper's
N - n is its own length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]

# Keeps perplexities, their sums and ratios finite, hence storable; such a candidate is lost anyway.
_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True)
class Continuation:
    """Greedy text of the reference, `tokens`, after `prefix`; both are token ids.

    `margins`: by how much each token's logit led the runner-up's when it was written, in nats;
    empty where that is not known.
    """

    prefix: Tokens
    tokens: Tokens
    margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What a model said while it read a continuation, one entry per token of it.

    `predicted` are its argmaxes, `logprobs` (nats) what it gave the continuation's own tokens.
    """

    predicted: Tokens
    logprobs: tuple[float, ...]

    @classmethod
    def of_logits(cls, logits_TV: NDArray[Any], tokens: Sequence[int]) -> Self:
        """From the logits [T, V] that stood before each of the T `tokens`."""
        logits_TV = np.asarray(logits_TV, np.float64)
        assert len(logits_TV) == len(tokens)
        top_T = logits_TV.max(-1)
        totals_T = top_T + np.log(np.exp(logits_TV - top_T[:, None]).sum(-1))
        own_T = logits_TV[np.arange(len(tokens)), list(tokens)]
        # NumPy's argmax is the first of equals, as ties are decided here.
        predicted = logits_TV.argmax(-1).tolist()
        return cls(tuple(predicted), tuple((own_T - totals_T).tolist()))


@dataclass(frozen=True)
class Divergence:
    """One prefix: FDT and SDT in tokens, DPPL as a perplexity per token."""

    fdt: int
    sdt: int
    dppl: float


def first_divergence(tokens: Sequence[int], predicted: Sequence[int]) -> int:
    """FDT: how many tokens agree before the first that does not; all of them when none differs."""
    pairs = enumerate(zip(tokens, predicted, strict=True))
    return next((i for i, (token, other) in pairs if token != other), len(tokens))


def num_divergences(tokens: Sequence[int], predicted: Sequence[int]) -> int:
    """SDT: how many corrections keep the candidate on the reference's path."""
    return sum(token != other for token, other in zip(tokens, predicted, strict=True))


def perplexity(logprobs: Sequence[float]) -> float:
    """exp of the mean negative log-likelihood; 1 for an empty text, huge but finite for NaN."""
    if not logprobs:
        return 1.0
    exponent = -math.fsum(logprobs) / len(logprobs)
    return math.exp(exponent if exponent < _LARGEST_EXPONENT else _LARGEST_EXPONENT)


def logprob_difference(readings: Sequence[Reading], expected: Sequence[Reading]) -> float:
    """Mean over all tokens by how much two readers of the same texts differ in what they give each,
    in nats; huge but finite for NaN.

    It sees what moves no argmax: a router in fewer digits, for one.
    """
    differences = [
        abs(own - other)
        for reading, theirs in zip(readings, expected, strict=True)
        for own, other in zip(reading.logprobs, theirs.logprobs, strict=True)
    ]
    mean = math.fsum(differences) / max(1, len(differences))
    return mean if mean < _LARGEST_EXPONENT else _LARGEST_EXPONENT


def compare(continuation: Continuation, reading: Reading) -> Divergence:
    """FDT, SDT and DPPL of one reading. Always `sdt <= len(tokens) * log2(dppl)`."""
    assert len(reading.logprobs) == len(continuation.tokens)
    return Divergence(
        fdt=first_divergence(continuation.tokens, reading.predicted),
        sdt=num_divergences(continuation.tokens, reading.predicted),
        dppl=perplexity(reading.logprobs),
    )


def worst(continuation: Continuation, readings: Sequence[Reading]) -> Reading:
    """Of several readings of one text the one that strays soonest; among equals, most often."""

    def distance(reading: Reading) -> tuple[int, int, float]:
        divergence = compare(continuation, reading)
        return divergence.fdt, -divergence.sdt, -divergence.dppl

    return min(readings, key=distance)
