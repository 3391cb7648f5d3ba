"""A server works when it writes tokens: for the probe, or for others while the probe waits."""

import threading
from dataclasses import dataclass

import pytest

from engine.serving import pulse
from engine.serving.pulse import Pulse


@dataclass
class Scripted:
    """A server that reports what the test says."""

    model: str = "m"
    answers: bool = False
    tokens: int | None = 0
    cpu: float = 0.0

    def probe(self, timeout: float) -> bool:
        return self.answers

    def num_tokens(self) -> int | None:
        return self.tokens

    def cpu_seconds(self) -> float:
        return self.cpu


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse, "monotonic", clock)
    return clock


@pytest.fixture
def server() -> Scripted:
    return Scripted()


@pytest.fixture
def watched(server: Scripted, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Pulse:
    """A pulse whose looks the test takes, one after the other."""
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    watched = Pulse(server)  # type: ignore[arg-type]  # it has what a pulse asks a server
    watched.look()
    return watched


def look(watched: Pulse, clock: Clock, *, after: float) -> float:
    clock.now += after
    watched.look()
    return watched.silence()


def test_an_answered_probe_is_work(server: Scripted, watched: Pulse, clock: Clock) -> None:
    server.answers = True
    assert look(watched, clock, after=5) == 0


def test_a_server_that_says_nothing_grows_silent(
    server: Scripted, watched: Pulse, clock: Clock
) -> None:
    server.tokens = None
    server.cpu = 100.0
    assert look(watched, clock, after=5) == 5
    assert look(watched, clock, after=25) == 30


def test_an_engine_that_answers_about_itself_and_writes_nothing_grows_silent(
    server: Scripted, watched: Pulse, clock: Clock
) -> None:
    server.tokens = 7
    look(watched, clock, after=5)
    assert look(watched, clock, after=30) == 35


def test_tokens_of_others_are_work(server: Scripted, watched: Pulse, clock: Clock) -> None:
    server.tokens = 7
    # The tokens were written at some time after the look before, which was 5 seconds ago.
    assert look(watched, clock, after=5) == 5
    server.tokens = 8
    assert look(watched, clock, after=5) == 5


def test_a_long_step_is_work_for_a_while(server: Scripted, watched: Pulse, clock: Clock) -> None:
    for _ in range(50):
        server.cpu += 5
        assert look(watched, clock, after=5) == 0
    server.cpu += 5
    assert look(watched, clock, after=pulse.COMPUTING_SECONDS) > pulse.COMPUTING_SECONDS
