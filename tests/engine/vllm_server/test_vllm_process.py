"""A real vLLM server, started once: its results equal the reference's; how it ends.

Covers: engine.vllm_plugin.api_server.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from tokenizers import Tokenizer

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.errors import Incomparable
from engine.divergence.metrics import Tokens
from engine.launch.launcher import LocalLauncher, LocalProcess
from engine.vllm_server import endpoints, vllm_process
from engine.vllm_server.vllm_process import Server
from registry import settings
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.errors import EngineFailed, TimedOut, Unavailable
from tests import tiny
from tests.assembler import tiny_mixes


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
    return LocalBlobs(tmp_path_factory.mktemp("home") / "blobs")


@pytest.fixture(scope="module")
def mix(blobs: LocalBlobs) -> Manifest:
    return tiny_mixes.store_mix(blobs)


@pytest.fixture(scope="module")
def served(mix: Manifest, blobs: LocalBlobs) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(blobs.root.parent))
        settings.settings.cache_clear()
        log_path = blobs.root.parent / "server.log"
        with vllm_process.serving(mix, blobs=blobs, log_path=log_path, model="mix") as served:
            served.wait_ready()
            yield served


def prompts() -> list[Tokens]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(tiny.ARCHITECTURE.vocab_size, (4, 12), generator=generator)
    return [tuple(row) for row in rows.tolist()]


@pytest.mark.slow
def test_readings_equal_the_reference_network(
    served: Server, mix: Manifest, blobs: LocalBlobs
) -> None:
    runner = network_runner.runner(Network.from_manifest(mix, blobs, dtype=torch.float32))
    continuations = runner.write(prompts(), num_tokens=8)
    readings = served.runner().read(continuations)
    expected = runner.read(continuations)
    assert [r.predicted for r in readings] == [c.tokens for c in continuations]
    for reading, expected_reading in zip(readings, expected, strict=True):
        assert reading.logprobs == pytest.approx(expected_reading.logprobs, abs=1e-4)


@pytest.mark.slow
def test_greedy_texts_equal_the_reference_network(
    served: Server, mix: Manifest, blobs: LocalBlobs
) -> None:
    network = Network.from_manifest(mix, blobs, dtype=torch.float32)
    reference = network_runner.runner(network, stop_token_ids={mix.config["eos_token_id"]})
    expected = reference.write(prompts(), num_tokens=40)
    texts = served.runner().write(prompts(), num_tokens=40)
    assert [c.tokens for c in texts] == [c.tokens for c in expected]
    for text, expected_text in zip(texts, expected, strict=True):
        assert text.margins == pytest.approx(expected_text.margins, abs=1e-4)


@pytest.mark.slow
def test_a_text_keeps_its_stop_token(served: Server) -> None:
    """The text is stopped at its fourth token by `stop_token_ids`."""
    runner = served.runner()
    [unstopped] = runner.write(prompts()[:1], num_tokens=12)
    stop = {"model": served.model, "prompt": [list(prompts()[0])], "max_tokens": 12}
    stop |= {"temperature": 0, "return_token_ids": True, "stop_token_ids": [unstopped.tokens[3]]}
    with endpoints.client(served.address, timeout=30) as client:
        answer = client.post("/v1/completions", json=stop).json()
    tokens = answer["choices"][0]["token_ids"]
    assert tokens == list(unstopped.tokens[: unstopped.tokens.index(unstopped.tokens[3]) + 1])


@pytest.mark.slow
def test_vllm_returns_everything_a_comparison_needs(served: Server) -> None:
    runner = served.runner()
    runner.check(vocab_size=tiny.ARCHITECTURE.vocab_size)
    assert runner.card()["id"] == "mix"
    tokenizer = Tokenizer.from_str(tiny.tokenizer_files()["tokenizer.json"].decode())
    texts = ["to be, or", "not to be"]
    expected = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert runner.encode(texts) == expected
    assert runner.decode([1, *expected[0]]) == "<|im_start|>to be, or"
    with pytest.raises(Incomparable, match="larger vocabulary than 60"):
        runner.check(vocab_size=60)


@pytest.mark.slow
def test_chat_uses_the_template(served: Server) -> None:
    body = {
        "model": "mix",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4,
        "ignore_eos": True,
    }
    with endpoints.client(served.address, timeout=30) as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.is_success, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert answer.json()["model"] == "mix"


@pytest.mark.slow
def test_an_idle_server_has_no_requests(served: Server) -> None:
    assert served.num_requests() == 0


@pytest.mark.slow
def test_nothing_outlives_a_killed_server(served: Server) -> None:
    """The last test, since it ends the server: even SIGKILL leaves no engine process behind."""
    assert isinstance(served.process, LocalProcess)
    [api_server] = psutil.Process(served.process.pid).children()
    processes = [api_server, *api_server.children(recursive=True)]
    assert len(processes) > 1
    api_server.kill()
    assert served.process.wait(30) == -9
    assert not any(process.is_running() for process in processes)
    with pytest.raises(Unavailable, match="ended with status -9"):
        served.is_ready()


@pytest.mark.long
def test_bytes_that_changed_after_the_gate_are_not_loaded(
    mix: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalBlobs(tmp_path / "blobs")
    monkeypatch.setenv("NEXUSMIX_HOME", str(tmp_path))
    settings.settings.cache_clear()
    assert tiny_mixes.store_mix(store) == mix
    path = store.local_path(mix.tensors["model.layers.1.mlp.experts.0.up_proj.weight"].digest)
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with (
        vllm_process.serving(mix, blobs=store, log_path=tmp_path / "server.log") as server,
        pytest.raises(EngineFailed, match="stored bytes were changed"),
    ):
        server.wait_ready()


def test_a_dying_server_raises_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = LocalLauncher().run(
        ["sh", "-c", "echo no such weights; exit 3"], env=os.environ, log_path=tmp_path / "log"
    )
    dying = Server(process, "m", tmp_path / "log")
    with pytest.raises(Unavailable, match="status 3:\nno such weights"):
        dying.wait_ready(timeout=30)


class Silent:
    """A process at an address where connections are accepted and nothing is answered."""

    name = "silent"
    identity = None

    def __init__(self, address: str) -> None:
        self.address = address

    def poll(self) -> None:
        return None

    def wait(self, timeout: float | None = None) -> None:
        return None

    def cpu_seconds(self) -> float:
        return 0.0

    def terminate(self, grace: float) -> None:
        return None


def test_a_server_that_has_too_much_to_do_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_process, "WARM_UP_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = Silent(f"http://127.0.0.1:{listening.getsockname()[1]}")
        server = Server(process, "mix", tmp_path / "server.log")
        with pytest.raises(TimedOut):
            server.warm_up()
    with pytest.raises(EngineFailed):
        server.warm_up()
