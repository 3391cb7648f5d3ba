"""Engines are forked from a process that has imported vLLM, where that is possible."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from engine.launch.forking_launcher import ForkedProcess, ForkingLauncher
from engine.launch.launcher import Launcher, LocalLauncher, LocalProcess
from engine.vllm_server import endpoints, engine_launcher, vllm_process
from registry.blobs.blobs import LocalBlobs
from registry.settings import settings
from tests.assembler import tiny_mixes
from tests.engine.launch.test_launcher import wait_until

# Prints the number of threads: a fork would have none of them.
IMPORT = f"""
import importlib, os
for name in {engine_launcher.PRELOADED}:
    importlib.import_module(name)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.fixture
def preload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_PRELOAD", "true")
    settings.cache_clear()


@pytest.fixture
def small(preload: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkingLauncher]:
    """Import little, and yield the launcher."""
    monkeypatch.setattr(engine_launcher, "PRELOADED", ("xml.dom.minidom",))
    with engine_launcher.preloaded() as launcher:
        assert isinstance(launcher, ForkingLauncher)
        yield launcher


def test_the_process_ends_with_the_block(small: ForkingLauncher) -> None:
    wait_until(lambda: small.is_ready, seconds=60)
    server = psutil.Process(small.pid)
    small.close()
    assert not server.is_running()


def test_it_has_the_environment_of_engines(small: ForkingLauncher) -> None:
    """libgomp reads its variables once, when it is loaded."""
    wait_until(lambda: small.is_ready, seconds=60)
    [server] = psutil.Process(small.pid).children()
    environment = server.environ()
    # Whoever sets a policy for waiting has chosen against the count.
    assert "OMP_WAIT_POLICY" in environment or environment["GOMP_SPINCOUNT"]
    assert "libgomp" in environment["LD_PRELOAD"]
    assert "NEXUSMIX_DATABASE_URL" not in environment


def test_without_the_setting_engines_start_from_nothing() -> None:
    with engine_launcher.preloaded() as launcher:
        assert isinstance(launcher, LocalLauncher)


def test_on_a_card_engines_start_from_nothing(
    preload: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA does not survive a fork."""
    monkeypatch.setattr(engine_launcher, "is_cpu_build", lambda: False)
    with engine_launcher.preloaded() as launcher:
        assert isinstance(launcher, LocalLauncher)


@pytest.mark.slow
def test_what_is_preloaded_starts_no_threads() -> None:
    # OpenBLAS starts one thread for each further core. It stops them before a fork.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "VLLM_PLUGINS": "nexusmix"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], env=env, stdout=subprocess.PIPE, check=True
    )
    assert int(done.stdout.split()[-1]) == 1


@pytest.mark.slow
def test_forked_engines_answer_as_one_from_nothing(preload: None, home: Path) -> None:
    """The second one is forked while the first one runs."""
    blobs = LocalBlobs(home / "blobs")
    mix = tiny_mixes.store_mix(blobs)
    body = {"model": "mix", "prompt": [[5, 6, 7, 8]], "max_tokens": 8, "temperature": 0}
    with engine_launcher.preloaded() as forking, ExitStack() as stack:

        def answer(launcher: Launcher, kind: type) -> str:
            server = vllm_process.start(
                mix, blobs=blobs, names=["mix"], log_path=home / "log", launcher=launcher
            )
            stack.callback(server.stop)
            assert isinstance(server.process, kind)
            server.wait_ready()
            with endpoints.client(server.address, timeout=60) as client:
                return str(client.post("/v1/completions", json=body).json()["choices"][0]["text"])

        forked = [answer(forking, ForkedProcess) for _ in range(2)]
        assert forked == [answer(LocalLauncher(), LocalProcess)] * 2
