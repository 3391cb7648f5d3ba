"""The order in which the service ends, with real processes; a real web process and its stream."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from engine.serving.tables import DeploymentState
from registry.settings import settings
from service.runtime import shutdown, supervisor
from service.runtime.processes import Child
from tests.service.conftest import serving
from tests.service.services import wait_for
from tests.service.test_gateway import say
from tests.service.upstream import Upstream, deploy

# Writes its name into a journal when it ends after SIGTERM: at once, or when the file named by the
# third argument exists.
PART = """
import pathlib, signal, sys, time
journal, name, waits_for = sys.argv[1:]
def end(*_):
    while waits_for and not pathlib.Path(waits_for).exists():
        time.sleep(0.01)
    with open(journal, "a") as file:
        print(name, file=file)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def parts(tmp_path: Path, journal: Path) -> Iterator[dict[str, Child]]:
    """A web process that waits for `answered`, and a worker and an agent that end at once."""
    waits = {"web": str(tmp_path / "answered"), "worker": "", "agent": ""}
    children = {
        name: Child(
            name,
            [sys.executable, "-c", PART, str(journal), name, answered],
            env={},
            log_path=tmp_path / f"{name}.log",
        )
        for name, answered in waits.items()
    }
    for child in children.values():
        child.keep_running()
    wait_for(lambda: all(c.log_path.read_text() for c in children.values()), "the start")
    yield children
    for child in children.values():
        child.kill()


def test_engines_end_after_the_last_answer(
    parts: dict[str, Child], journal: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(shutdown.stop, **parts, hurry=threading.Event())
        wait_for(lambda: journal.read_text() == "worker\n", "the end of the worker")
        assert parts["agent"].is_running()
        (tmp_path / "answered").touch()
        ending.result()
    assert journal.read_text().split() == ["worker", "web", "agent"]


def test_answers_have_a_time_limit(
    parts: dict[str, Child], journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_DRAIN_SECONDS", "0")
    monkeypatch.setattr(shutdown, "LAST_WORDS_SECONDS", 0.1)
    settings.cache_clear()
    web = parts["web"]
    shutdown.stop(**parts, hurry=threading.Event())
    assert not web.is_running()
    assert sorted(journal.read_text().split()) == ["agent", "worker"]


def test_a_second_signal_ends_at_once(parts: dict[str, Child], journal: Path) -> None:
    hurry = threading.Event()
    hurry.set()
    shutdown.stop(**parts, hurry=hurry)
    assert not any(child.is_running() for child in parts.values())
    assert "web" not in journal.read_text()


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.mark.slow  # it loads the web process
def test_a_stream_is_finished_and_new_requests_are_refused(
    database: str, key: str, upstream: Upstream
) -> None:
    settings().home.mkdir(parents=True)
    port = supervisor.free_port("127.0.0.1", 0)
    web = supervisor._children("127.0.0.1", port)[0]
    address = f"http://127.0.0.1:{port}"
    body = {"model": "m", "messages": say("slow"), "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    with serving(upstream.app) as engine:
        deploy("m", DeploymentState.READY, address=engine)
        web.keep_running()
        try:
            wait_for(lambda: supervisor.answers(address), "the pages")
            with httpx.stream(
                "POST", f"{address}/v1/chat/completions", json=body, headers=headers, timeout=60
            ) as answer:
                events = answer.iter_lines()
                next(events)
                web.ask_to_stop()
                wait_for(lambda: not supervisor.answers(address), "the end of new requests")
                upstream.go_on.set()
                rest = [line for line in events if line]
            assert rest[-1] == "data: [DONE]"
            wait_for(lambda: not web.is_running(), "the end of the web process")
        finally:
            web.kill()
