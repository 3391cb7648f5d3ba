"""Which deployments start, sleep and wait, by the memory that their engines take."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from engine.serving import engine_memory
from engine.serving.engine_memory import Memory, Plan
from engine.serving.running import Running
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server.engine_options import EngineOptions
from registry import settings
from registry.blobs import blob_stores
from tests import tiny

State = DeploymentState
START = datetime(2026, 12, 1, tzinfo=UTC)
GB = 10**9


def row(number: int, state: State, *, model: str | None = None, pinned: bool = False) -> Deployment:
    return Deployment(
        id=number,
        model=model or f"m{number}",
        manifest_digest=str(number),
        state=state,
        pinned=pinned,
        created_at=START + timedelta(seconds=number),
    )


def running(*, idle_since: float, since: float = 0.0) -> Running:
    found = SimpleNamespace(since=since, idle_since=lambda: idle_since)
    return cast(Running, found)


@pytest.fixture(autouse=True)
def ten_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_ENGINE_MEMORY_BYTES", str(10 * GB))
    settings.settings.cache_clear()
    monkeypatch.setattr(engine_memory, "monotonic", lambda: 1000.0)


def plan(
    rows: list[Deployment], engines: Mapping[int, Running], *, gigabytes: int | dict[int, int] = 4
) -> Plan:
    memory = Memory()
    for each in rows:
        size = gigabytes if isinstance(gigabytes, int) else gigabytes[each.id]
        memory._sizes[each.manifest_digest, each.engine_options] = size * GB
    return memory.plan(rows, engines)


def test_what_fits_starts() -> None:
    rows = [row(1, State.REQUESTED), row(2, State.REQUESTED)]
    assert plan(rows, {}) == Plan(start={1, 2})


def test_the_one_that_was_not_used_for_longest_sleeps() -> None:
    rows = [row(1, State.READY), row(2, State.READY), row(3, State.REQUESTED)]
    engines = {1: running(idle_since=900), 2: running(idle_since=800)}
    assert plan(rows, engines) == Plan(sleep={2}, waiting={3})


def test_one_sleeps_for_one() -> None:
    """While an engine is ending, no second one falls asleep for the same deployment."""
    rows = [row(1, State.READY), row(2, State.ASLEEP), row(3, State.REQUESTED)]
    engines = {1: running(idle_since=900), 2: running(idle_since=800)}
    assert plan(rows, engines) == Plan(waiting={3})
    assert plan(rows, {1: engines[1]}) == Plan(start={3})


def test_a_pinned_one_and_one_that_has_just_begun_stay_awake() -> None:
    rows = [row(1, State.READY, pinned=True), row(2, State.READY), row(3, State.REQUESTED)]
    engines = {1: running(idle_since=800), 2: running(idle_since=999, since=999)}
    assert plan(rows, engines) == Plan(waiting={3})


def test_several_sleep_for_a_large_one() -> None:
    rows = [row(1, State.READY), row(2, State.READY), row(3, State.REQUESTED)]
    engines = {1: running(idle_since=900), 2: running(idle_since=800)}
    assert plan(rows, engines, gigabytes={1: 4, 2: 4, 3: 9}) == Plan(sleep={1, 2}, waiting={3})


def test_one_that_needs_more_than_there_is_starts_alone() -> None:
    assert plan([row(1, State.REQUESTED)], {}, gigabytes=12) == Plan(start={1})


def test_the_first_that_was_asked_for_comes_first() -> None:
    first, second = row(1, State.REQUESTED), row(2, State.REQUESTED)
    first.woken_at = START + timedelta(hours=1)
    assert plan([first, second], {}, gigabytes=8) == Plan(start={2}, waiting={1})


def test_a_new_version_starts_beside_the_old_one() -> None:
    rows = [row(1, State.READY, model="m"), row(2, State.REQUESTED, model="m")]
    engines = {1: running(idle_since=800)}
    assert plan(rows, engines, gigabytes=8) == Plan(start={2})


def test_a_woken_one_waits_for_its_own_old_engine() -> None:
    assert plan([row(1, State.REQUESTED)], {1: running(idle_since=1)}) == Plan(waiting={1})


def test_nobody_waits_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEXUSMIX_ENGINE_MEMORY_BYTES")
    settings.settings.cache_clear()
    monkeypatch.setattr(engine_memory, "is_cpu_build", lambda: False)
    assert plan([row(1, State.REQUESTED)], {}, gigabytes=10**6) == Plan(start={1})


def test_the_kv_memory_of_options_counts() -> None:
    """Two small networks fit, and one of them with a large cache does not fit beside the other."""
    digest = tiny.store_manifest(blob_stores.store()).digest
    rows = [row(1, State.REQUESTED), row(2, State.REQUESTED)]
    for each in rows:
        each.manifest_digest = digest
    memory = Memory()
    for each in rows:
        memory.learn(each)
    assert memory.plan(rows, {}) == Plan(start={1, 2})
    rows[1].options = EngineOptions(kv_memory_bytes=9 * GB).stored()
    assert not memory.knows(rows[1])
    memory.learn(rows[1])
    assert memory.plan(rows, {}) == Plan(start={1}, waiting={2})


def test_a_manifest_that_cannot_be_read_is_left_to_the_start() -> None:
    memory, unreadable = Memory(), row(1, State.REQUESTED)
    assert memory.plan([unreadable], {}) == Plan()
    unreadable.manifest_digest = "0" * 64
    memory.learn(unreadable)
    assert not memory.knows(unreadable)
    assert memory.plan([unreadable], {}) == Plan(start={1})
