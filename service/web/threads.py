"""Threads by purpose, so that work of one kind never waits for threads that another kind holds."""

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

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


class Shared(Generic[T]):
    """Lets all who ask for the same within one period share one answer.

    Whoever sleeps with `next_period` in between asks at the same time as the others.
    """

    def __init__(self, threads: Threads, *, seconds: float) -> None:
        self._threads = threads
        self._seconds = seconds
        # A task belongs to its event loop.
        self._running: dict[tuple[Hashable, asyncio.AbstractEventLoop], asyncio.Task[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """Return the result of `work`, or of the same that already runs for somebody else."""
        name = (key, asyncio.get_running_loop())
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._threads.run(work))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        # Who leaves must not end the work of the others.
        return await asyncio.shield(task)

    async def next_period(self) -> None:
        """Sleep until the next multiple of the period."""
        await asyncio.sleep(self._seconds - time.monotonic() % self._seconds)


# Long JSON texts. The interpreter reads one at a time in any case.
READING = Threads("reading", 1)
# Bytes of uploads: written while they arrive, each piece for itself.
STORING = Threads("storing", 8)
# Events of jobs, for everybody who follows one.
FOLLOWING = Threads("following", 4)
# Whether the service works.
HEALTH = Threads("health", 2)
# Vectors of texts. Each computation uses all cores.
ENCODING = Threads("encoding", 1)
