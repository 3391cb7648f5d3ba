"""Remembers for a moment what the database said, and for longer while it does not answer.

Applications that use a model need two facts: whose key this is, and where the model answers. With
them remembered, a database that restarts stops no request to a model.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

import structlog

from registry.database import db
from registry.errors import NexusmixError
from registry.settings import settings

# A key that is revoked, or a model that moves, is noticed this long after. Engines drain for longer
# (`engine.serving.running.DRAIN_SECONDS_MIN`), so a moved model is never asked at its old address.
FRESH_SECONDS = 1.0
# How long a request waits for a database that may be away, if the answer is remembered.
PATIENCE_SECONDS = 0.5
MAX_ENTRIES = 10_000
MAX_THREADS = 4

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

log = structlog.stdlib.get_logger(__name__)


@dataclass
class _Entry(Generic[V]):
    """A value, and the monotonic times when it was read and when reading was last tried."""

    value: V
    read_at: float
    tried_at: float


class Remembered(Generic[K, V]):
    """Values of `load` by key. Use one from one event loop.

    `load` runs in a thread of its own pool, so that slow requests of others never hold it up.
    """

    def __init__(self, load: Callable[[K], V]) -> None:
        self._load = load
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._reading: dict[K, asyncio.Task[V]] = {}
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="remembered")

    async def get(self, key: K) -> V:
        """Return the value of `key`, at most FRESH_SECONDS old while the database answers.

        While it does not answer, a value is good for `outage_seconds` of the settings. Raises what
        `load` raises.
        """
        entry = self._entries.get(key)
        now = monotonic()
        if entry is not None and now < entry.tried_at + FRESH_SECONDS:
            return entry.value
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._read(key))
            task.add_done_callback(lambda done: self._note_end(key, done))
        if entry is None:
            return await asyncio.shield(task)
        entry.tried_at = now
        try:
            return await asyncio.wait_for(asyncio.shield(task), PATIENCE_SECONDS)
        except (TimeoutError, *db.OUTAGES):
            if monotonic() > entry.read_at + settings().outage_seconds:
                return await asyncio.shield(task)
            return entry.value

    def doubt(self, key: K) -> None:
        """Read `key` anew when it is next asked for; what is known counts if that fails."""
        if key in self._entries:
            self._entries[key].tried_at = float("-inf")

    def close(self) -> None:
        """End the threads; one that still waits for the database ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, key: K) -> V:
        loop = asyncio.get_running_loop()
        try:
            value = await loop.run_in_executor(self._threads, self._load, key)
        except NexusmixError:
            # The database has answered: the key was revoked, or the model is gone.
            self._entries.pop(key, None)
            raise
        now = monotonic()
        self._entries[key] = _Entry(value, read_at=now, tried_at=now)
        self._entries.move_to_end(key)
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        return value

    def _note_end(self, key: K, task: "asyncio.Task[V]") -> None:
        del self._reading[key]
        # Those who waited for it have gone on; an error that nobody sees must not be lost.
        if not task.cancelled() and isinstance(error := task.exception(), db.OUTAGES):
            log.warning("the database does not answer", error=str(error).splitlines()[0])
