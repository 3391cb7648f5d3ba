"""Threads by purpose, so that work of one kind never waits for threads that another kind holds."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

T = TypeVar("T")


class Threads:
    """At most `number` threads for one purpose, in each event loop."""

    def __init__(self, purpose: str, number: int) -> None:
        self._number = number
        self._limiter: RunVar[CapacityLimiter] = RunVar(purpose)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread and return its result."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = CapacityLimiter(self._number)
            self._limiter.set(limiter)
        return await to_thread.run_sync(work, limiter=limiter)


# Long JSON texts. The interpreter reads one at a time in any case.
READING = Threads("reading", 1)
# Bytes of uploads: written while they arrive, each piece for itself.
STORING = Threads("storing", 8)
# Events of jobs, for everybody who follows one.
FOLLOWING = Threads("following", 4)
# Whether the service works.
HEALTH = Threads("health", 2)
