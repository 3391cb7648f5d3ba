"""What is remembered is read again soon, and kept while the database is away."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from registry.errors import NotFound
from registry.settings import settings
from service.web import remembered
from service.web.remembered import Remembered
from tests.coroutines import result_of

AWAY = OperationalError("SELECT", {}, Exception("away"))


class Source:
    """What the database says: a value, an error, or nothing until `released`."""

    def __init__(self) -> None:
        self.says: str | Exception = "first"
        self.num_read = 0
        self.released = threading.Event()
        self.released.set()

    def read(self, key: str) -> str:
        self.num_read += 1
        self.released.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def run(source: Source, test: "Coroutine[Any, Any, None]") -> None:
    try:
        result_of(test)
    finally:
        source.released.set()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every value be too old at once."""
    monkeypatch.setattr(remembered, "FRESH_SECONDS", 0.0)


def test_a_fresh_value_is_not_read_again(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "FRESH_SECONDS", 600.0)

    async def ask() -> None:
        values = Remembered(source.read)
        assert [await values.get("a"), await values.get("a")] == ["first", "first"]
        assert source.num_read == 1
        values.doubt("a")
        source.says = "second"
        assert await values.get("a") == "second"

    run(source, ask())


def test_requests_together_read_once(source: Source) -> None:
    async def ask() -> None:
        values = Remembered(source.read)
        assert list(await asyncio.gather(values.get("a"), values.get("a"))) == ["first", "first"]
        assert source.num_read == 1

    run(source, ask())


@pytest.mark.usefixtures("stale")
def test_a_value_outlives_an_outage(source: Source) -> None:
    async def ask() -> None:
        values = Remembered(source.read)
        await values.get("a")
        source.says = AWAY
        assert await values.get("a") == "first"
        with pytest.raises(OperationalError):
            await values.get("b")

    run(source, ask())


@pytest.mark.usefixtures("stale")
def test_a_silent_database_is_not_waited_for(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "PATIENCE_SECONDS", 0.01)

    async def ask() -> None:
        values = Remembered(source.read)
        await values.get("a")
        source.released.clear()
        assert await values.get("a") == "first"
        source.released.set()

    run(source, ask())


@pytest.mark.usefixtures("stale")
def test_what_is_gone_is_not_remembered(source: Source) -> None:
    async def ask() -> None:
        values = Remembered(source.read)
        await values.get("a")
        source.says = NotFound("gone")
        with pytest.raises(NotFound):
            await values.get("a")
        source.says = AWAY
        with pytest.raises(OperationalError):
            await values.get("a")

    run(source, ask())


@pytest.mark.usefixtures("stale")
def test_a_long_outage_ends_what_is_remembered(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_OUTAGE_SECONDS", "0")
    settings.cache_clear()

    async def ask() -> None:
        values = Remembered(source.read)
        await values.get("a")
        source.says = AWAY
        with pytest.raises(OperationalError):
            await values.get("a")

    run(source, ask())


def test_no_more_is_kept_than_fits(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_ENTRIES", 1)
    monkeypatch.setattr(remembered, "FRESH_SECONDS", 600.0)

    async def ask() -> None:
        values = Remembered(source.read)
        for key in "aba":
            await values.get(key)
        assert source.num_read == 3

    run(source, ask())
