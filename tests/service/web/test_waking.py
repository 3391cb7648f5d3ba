"""Requests for a model that is asleep wait, but not all and not for ever."""

import asyncio

import pytest

from engine.serving.model_routes import Route
from engine.serving.sleeping import Asleep
from registry.errors import TimedOut
from registry.settings import settings
from service.web import waking
from service.web.remembered import Remembered
from service.web.waking import Waking
from tests.coroutines import result_of

ROUTE = Route("http://127.0.0.1:1", False)


class Sleeper:
    """A model that answers when it was asked for `num_asleep` times."""

    def __init__(self, num_asleep: float) -> None:
        self.num_asleep = num_asleep

    def resolve(self, model: str) -> Route:
        self.num_asleep -= 1
        if self.num_asleep < 0:
            return ROUTE
        raise Asleep(f"{model} is being woken")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "POLL_SECONDS", 0.01)


def limited(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"NEXUSMIX_{name}", value)
    settings.cache_clear()


def test_a_request_waits_until_the_model_is_awake() -> None:
    routes = Remembered(Sleeper(3).resolve)
    assert result_of(Waking(routes).route("m")) == ROUTE


def test_it_gives_up_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, WAKE_SECONDS="0.05")
    routes = Remembered(Sleeper(float("inf")).resolve)
    with pytest.raises(TimedOut, match="did not wake up within"):
        result_of(Waking(routes).route("m"))


def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, MAX_WAITING_REQUESTS="2", WAKE_SECONDS="0.2")
    waiting = Waking(Remembered(Sleeper(float("inf")).resolve))

    async def ask() -> list[BaseException | Route]:
        requests = (waiting.route("m") for _ in range(5))
        return await asyncio.gather(*requests, return_exceptions=True)

    answers = result_of(ask())
    assert [type(answer) for answer in answers].count(TimedOut) == 2
    assert [type(answer) for answer in answers].count(Asleep) == 3
    # Those that waited have left their places.
    assert waiting._num_waiting == 0
