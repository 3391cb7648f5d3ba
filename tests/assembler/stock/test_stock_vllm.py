"""Stock vLLM, without our plugin, computes from an export what the mix computes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Continuation
from engine.divergence.torch_runner import TorchRunner
from engine.vllm_server import engine_environment
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests.assembler import stock_mixes
from tests.assembler.stock_mixes import MIXES
from tests.assembler.workers import wait_for
from tests.engine.vllm_plugin.test_model import NUM_GREEDY, PROMPT_LENGTHS, READER

pytestmark = pytest.mark.long

# Every base and every kind of mix once; transformers reads them all.
NAMES = (
    "llama",
    "llama-btx",
    "llama-disabled",
    "llama-llama3",
    "mistral",
    "qwen2-yarn",
    "qwen3",
    "qwen3-sum",
)


@pytest.fixture
def environment() -> dict[str, str]:
    """Return the environment of an engine that loads no plugin."""
    return engine_environment.environment(os.environ | {"OMP_NUM_THREADS": "1", "VLLM_PLUGINS": ""})


@pytest.fixture
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(64, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS]


def runner_of(manifest: Manifest, blobs: LocalBlobs) -> TorchRunner:
    return network_runner.runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))


def test_every_layout_equals_the_reference(
    environment: dict[str, str], prompts: list[list[int]], blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifests = {n: stock_mixes.export(MIXES[n], blobs, tmp_path / n) for n in NAMES}
    folders = [str(tmp_path / name) for name in NAMES]
    finished = subprocess.run(
        [sys.executable, str(READER), str(NUM_GREEDY), *folders],
        input=json.dumps(prompts),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    answers = json.loads(finished.stdout.splitlines()[-1])
    for name, given in zip(NAMES, answers, strict=True):
        runner = runner_of(manifests[name], blobs)
        for prompt, answer in zip(prompts, given, strict=True):
            [expected] = runner.read([Continuation(tuple(prompt[:1]), tuple(prompt[1:]))])
            logprobs = [logprob for _, logprob in answer["positions"]]
            assert logprobs == pytest.approx(expected.logprobs, abs=1e-4), name
            [greedy] = runner.write([tuple(prompt)], num_tokens=NUM_GREEDY)
            assert answer["greedy"] == list(greedy.tokens), name


@contextmanager
def served(folder: Path, environment: dict[str, str]) -> Iterator[httpx.Client]:
    """Run what `vllm serve` runs on a folder; yields a client of it.

    The command itself wants a package named `vllm`, and ours is named after the processor.
    """
    socket = folder.parent / "engine.sock"
    words = ["--model", str(folder), "--uds", str(socket), "--served-model-name", "stock"]
    words += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "128"]
    # Otherwise vLLM wants nine tenths of the machine's memory, which other tests use too.
    words += ["--kv-cache-memory-bytes", str(64 << 20)]
    transport = httpx.HTTPTransport(uds=str(socket))
    with (
        subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words], env=environment
        ) as server,
        httpx.Client(transport=transport, base_url="http://engine", timeout=120) as client,
    ):

        def is_ready() -> bool:
            assert server.poll() is None, "the server ended"
            try:
                return client.get("/health").is_success
            except httpx.TransportError:
                return False

        try:
            wait_for(is_ready, "the server")
            yield client
        finally:
            server.terminate()


def test_vllm_serve_answers_as_the_mix_does(
    environment: dict[str, str], prompts: list[list[int]], blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifest = stock_mixes.export(MIXES["llama"], blobs, tmp_path / "stock", max_shard_bytes=10**5)
    with served(tmp_path / "stock", environment) as client:
        for prompt in prompts:
            body: dict[str, Any] = {"model": "stock", "prompt": prompt, "temperature": 0}
            body |= {"max_tokens": NUM_GREEDY, "ignore_eos": True, "return_token_ids": True}
            answer = client.post("/v1/completions", json=body).raise_for_status().json()
            [greedy] = runner_of(manifest, blobs).write([tuple(prompt)], num_tokens=NUM_GREEDY)
            assert answer["choices"][0]["token_ids"] == list(greedy.tokens)
