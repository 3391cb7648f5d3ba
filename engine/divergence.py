"""Divergent token metrics: how far a candidate strays from its reference's greedy text.

Source: Divergent Token Metrics (arXiv 2311.01544), section 3. The reference continues a prefix
greedily; the candidate reads that text once, teacher-forced. FDT, the first divergent token, is
then the same number that two free greedy runs would give.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Keeps perplexities, their sums and ratios finite, hence storable; such a candidate is lost anyway.
_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True)
class Continuation:
    """Greedy text of the reference, `tokens`, after `prefix`; both are token ids."""

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """What a model said while it read a continuation, one entry per token of it.

    `predicted` are its argmaxes, `logprobs` (nats) what it gave the continuation's own tokens.
    """

    predicted: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Divergence:
    """One prefix: FDT and SDT in tokens, DPPL as a perplexity per token."""

    fdt: int
    sdt: int
    dppl: float


@dataclass(frozen=True)
class Spread:
    """Mean and quartiles over prefixes; linear interpolation between neighbours."""

    mean: float
    p25: float
    p50: float
    p75: float


@dataclass(frozen=True)
class Summary:
    """All prefixes of a domain. `equal_share` and `perplexity` are pooled over their tokens."""

    num_prefixes: int
    num_tokens: int
    equal_share: float
    perplexity: float
    fdt: Spread
    sdt: Spread
    dppl: Spread


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


def compare(continuation: Continuation, reading: Reading) -> Divergence:
    """FDT, SDT and DPPL of one reading. Always `sdt <= len(tokens) * log2(dppl)`."""
    assert len(reading.logprobs) == len(continuation.tokens)
    return Divergence(
        fdt=first_divergence(continuation.tokens, reading.predicted),
        sdt=num_divergences(continuation.tokens, reading.predicted),
        dppl=perplexity(reading.logprobs),
    )


def summarise(continuations: Sequence[Continuation], readings: Sequence[Reading]) -> Summary:
    """Compare pairwise and aggregate; at least one continuation with at least one token."""
    divergences = [compare(c, r) for c, r in zip(continuations, readings, strict=True)]
    num_tokens = sum(len(c.tokens) for c in continuations)
    return Summary(
        num_prefixes=len(divergences),
        num_tokens=num_tokens,
        equal_share=1 - sum(d.sdt for d in divergences) / num_tokens,
        perplexity=perplexity([logprob for r in readings for logprob in r.logprobs]),
        fdt=spread([d.fdt for d in divergences]),
        sdt=spread([d.sdt for d in divergences]),
        dppl=spread([d.dppl for d in divergences]),
    )


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(*[float(values[0])] * 4)
    p25, p50, p75 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(mean=statistics.fmean(values), p25=p25, p50=p50, p75=p75)
