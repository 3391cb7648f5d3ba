"""The noise floor: how far the reference strays from its own text when nothing but numerics differ.

No candidate can be asked for more. It is measured with everything that may change a last digit
changed: one pass instead of token by token, then also batches of another size, in another order, on
another number of threads; and, where a candidate is served, by the engine that serves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from threadpoolctl import threadpool_info, threadpool_limits

from engine.divergence.aggregates import Summary, summarize
from engine.divergence.metrics import Continuation, Reading, logprob_difference, worst
from engine.divergence.runners import Runner

IN_ONE_PASS = "in one pass"
OTHERWISE_BATCHED = "in other batches, order and threads"
SERVED = "by the serving engine"

# Odd, and small, so that batches seldom hold what they held before.
BATCH_SIZE = 3

Variations = Mapping[str, Sequence[Reading]]


def variations(runner: Runner, continuations: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """Readings of a reference's own continuations, by what was varied; each in their order."""
    return {
        IN_ONE_PASS: runner.read(continuations),
        OTHERWISE_BATCHED: _otherwise_batched(runner, continuations),
    }


def floor(continuations: Sequence[Continuation], varied: Variations) -> Summary:
    """Of each continuation the reading that strays soonest; of the differences of log-probabilities
    from those in one pass, which `varied` must hold, the largest."""
    readings = [
        worst(continuation, own)
        for continuation, *own in zip(continuations, *varied.values(), strict=True)
    ]
    expected = varied[IN_ONE_PASS]
    return replace(
        summarize(continuations, readings),
        logprob_difference=max(logprob_difference(own, expected) for own in varied.values()),
    )


def other_threads() -> threadpool_limits:
    """Within it computations take one thread instead of several, or two instead of one."""
    most = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    return threadpool_limits(1 if most > 1 else 2)


def _otherwise_batched(runner: Runner, continuations: Sequence[Continuation]) -> list[Reading]:
    backwards = continuations[::-1]
    readings: list[Reading] = []
    with other_threads():
        for start in range(0, len(backwards), BATCH_SIZE):
            readings += runner.read(backwards[start : start + BATCH_SIZE])
    return readings[::-1]
