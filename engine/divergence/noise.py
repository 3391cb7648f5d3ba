"""Measure the noise floor: how far the reference diverges from its own text by numerics alone.

No candidate can be required to do better. The floor is measured with everything varied that may
change a last digit: reading in one pass instead of token by token; then also batches of another
size, in another order, on another number of threads; and, where a candidate is served, reading by
the serving engine.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading, logprob_difference, worst
from engine.divergence.runners import Runner

IN_ONE_PASS = "in one pass"
OTHERWISE_BATCHED = "in other batches, order and threads"
SERVED = "by the serving engine"

# Odd and small, so that batches seldom have the same members as before.
BATCH_SIZE = 3

Variations = Mapping[str, Sequence[Reading]]


def variations(runner: Runner, continuations: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """Return the reference's readings of its own texts, by what was varied."""
    return {
        IN_ONE_PASS: runner.read(continuations),
        OTHERWISE_BATCHED: _otherwise_batched(runner, continuations),
    }


def floor(continuations: Sequence[Continuation], variations: Variations) -> Summary:
    """Return the noise floor of the continuations.

    Each continuation counts with the reading that diverges soonest. The difference of
    log-probabilities is the largest one from the readings in one pass, which `variations` must
    include.
    """
    readings = [
        worst(continuation, own_readings)
        for continuation, *own_readings in zip(continuations, *variations.values(), strict=True)
    ]
    expected = variations[IN_ONE_PASS]
    return replace(
        summarize(continuations, readings),
        logprob_difference=max(
            logprob_difference(varied_readings, expected) for varied_readings in variations.values()
        ),
    )


def other_threads() -> AbstractContextManager[object]:
    """Return a context in which computations use one thread instead of several, or two instead of
    one. Needs threadpoolctl."""
    # Not at the top: the floor of readings that others have made needs NumPy only.
    from threadpoolctl import threadpool_info, threadpool_limits

    most = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    limits: AbstractContextManager[object] = threadpool_limits(1 if most > 1 else 2)
    return limits


def _otherwise_batched(runner: Runner, continuations: Sequence[Continuation]) -> list[Reading]:
    """Read in batches of BATCH_SIZE, in reverse order, on another number of threads."""
    reversed_texts = continuations[::-1]
    readings: list[Reading] = []
    with other_threads():
        for start in range(0, len(reversed_texts), BATCH_SIZE):
            readings += runner.read(reversed_texts[start : start + BATCH_SIZE])
    return readings[::-1]
