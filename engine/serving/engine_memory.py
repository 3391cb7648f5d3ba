"""How much memory engines take, and which of them fall asleep to make room for others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import psutil

from engine.serving.running import Running
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_build import is_cpu_build
from engine.vllm_server.context import engine_bytes
from engine.vllm_server.engine_options import EngineOptions
from registry.blobs import blob_stores
from registry.checkpoints import manifests
from registry.errors import NexusmixError
from registry.settings import settings

# Of the machine's memory. The rest is for the service, its jobs, and the pages of files.
DEFAULT_SHARE = 0.8
# A model that has just begun to answer is not put to sleep, so that each request is answered.
MIN_AWAKE_SECONDS = 5.0
WAITS = "waits for memory: other models take it, and are pinned or have just been asked"


# A manifest by its digest, and how it is served.
Engine = tuple[str, EngineOptions]


def budget() -> int | None:
    """Return the memory of this host for engines in bytes; None for no limit."""
    configured = settings().engine_memory_bytes
    if configured is not None:
        return configured
    return int(DEFAULT_SHARE * psutil.virtual_memory().total) if is_cpu_build() else None


@dataclass(frozen=True)
class Plan:
    """What one round of an agent does: ids of deployments.

    `start` may start, `sleep` fall asleep, and `waiting` have to wait for memory.
    """

    start: set[int] = field(default_factory=set)
    sleep: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)


class Memory:
    """The engines of one host, by the memory that they take."""

    def __init__(self) -> None:
        # Of a manifest that cannot be read nobody knows; its start will say why.
        self._sizes: dict[Engine, int] = {}
        self._unreadable: set[str] = set()

    def knows(self, row: Deployment) -> bool:
        """Tell whether the memory of a deployment's engine is known."""
        return _engine(row) in self._sizes

    def learn(self, row: Deployment) -> None:
        """Read how much memory the engine of a deployment takes."""
        digest = row.manifest_digest
        try:
            manifest = manifests.load(blob_stores.store(), digest)
        except (NexusmixError, OSError):
            self._unreadable.add(digest)
        else:
            self._sizes[_engine(row)] = engine_bytes(manifest.architecture, row.engine_options)

    def plan(self, rows: Sequence[Deployment], running: Mapping[int, Running]) -> Plan:
        """Return which requested deployments may start, and which others fall asleep for them.

        Who has waited longest comes first. Two may exceed the budget: one that runs alone, and a
        new version of a model that is served meanwhile, if no other can fall asleep for it.
        """
        requested = [
            row
            for row in rows
            if row.state is DeploymentState.REQUESTED
            and (self.knows(row) or row.manifest_digest in self._unreadable)
        ]
        most = budget()
        if most is None:
            return Plan(start={row.id for row in requested})
        if not requested:
            return Plan()
        sizes = {row.id: self._sizes.get(_engine(row), 0) for row in rows}
        engines = {row.id for row in rows if _has_engine(row)} | running.keys()
        # Of engines whose row has gone there is nothing to free: they end by themselves.
        free = most - sum(sizes[number] for number in engines if number in sizes)
        leaving = sum(sizes[row.id] for row in rows if row.id in engines and _leaves(row))
        served = {row.model for row in rows if row.state is DeploymentState.READY}
        victims = list(_victims(rows, running))
        plan = Plan()
        for row in sorted(requested, key=lambda row: (row.woken_at or row.created_at, row.id)):
            need = sizes[row.id]
            if row.id in running:
                plan.waiting.add(row.id)  # until its old engine has answered what it has begun
            elif need <= free or not (engines | plan.start):
                plan.start.add(row.id)
                free -= need
            else:
                plan.waiting.add(row.id)
                missing = need - free - leaving
                while missing > 0 and victims:
                    victim = victims.pop(0)
                    plan.sleep.add(victim.id)
                    missing -= sizes[victim.id]
                    leaving += sizes[victim.id]
                if missing > 0 and row.model in served:
                    plan.waiting.remove(row.id)
                    plan.start.add(row.id)
                leaving -= min(need, leaving)
                free = min(free, 0)
        return plan


def _engine(row: Deployment) -> Engine:
    """Return what decides how much memory the engine of a deployment takes."""
    return row.manifest_digest, row.engine_options


def _has_engine(row: Deployment) -> bool:
    return row.state in (DeploymentState.STARTING, DeploymentState.READY, DeploymentState.DRAINING)


def _leaves(row: Deployment) -> bool:
    return row.state in (DeploymentState.ASLEEP, DeploymentState.DRAINING)


def _victims(rows: Sequence[Deployment], running: Mapping[int, Running]) -> Iterator[Deployment]:
    """Yield deployments that may fall asleep, least recently used first.

    One that another replaces is not among them: requests would wake it again.
    """
    replaced = {row.model for row in rows if row.state is DeploymentState.REQUESTED}
    now = monotonic()
    candidates = [
        (running[row.id].idle_since(), row)
        for row in rows
        if row.state is DeploymentState.READY
        and row.id in running
        and not row.pinned
        and row.model not in replaced
        and now > running[row.id].since + MIN_AWAKE_SECONDS
    ]
    yield from (row for _, row in sorted(candidates, key=lambda pair: pair[0]))
