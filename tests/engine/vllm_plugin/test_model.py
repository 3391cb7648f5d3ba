"""vLLM equals the reference network: log-probabilities within 1e-4, and greedy tokens.

One separate process runs vLLM for all tests: vLLM prints warnings, changes global state, and takes
long to import.

Covers: attention, loader, moe, router.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Continuation
from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import engine_environment
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES

pytestmark = pytest.mark.slow

READER = Path(__file__).parents[1] / "vllm_reader.py"
PROMPT_LENGTHS = (5, 17, 40)
NUM_GREEDY = 12

Answers = list[dict[str, Any]]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randint(tiny.ARCHITECTURE.vocab_size, (length,), generator=generator).tolist()
        for length in PROMPT_LENGTHS
    ]


@pytest.fixture(scope="module")
def answers(
    prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Answers]:
    """Return vLLM's output for the prompts, by architecture."""
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    stored = [networks.store(blobs, architecture) for architecture in ARCHITECTURES.values()]
    folders = [str(materialize(manifest, blobs, root=home / "s")) for manifest in stored]
    finished = subprocess.run(
        [sys.executable, str(READER), str(NUM_GREEDY), *folders],
        input=json.dumps(prompts),
        env=engine_environment.environment(
            os.environ | {"OMP_NUM_THREADS": "1", "NEXUSMIX_HOME": str(home)}
        ),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return dict(zip(ARCHITECTURES, json.loads(finished.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vllm_equals_the_reference(
    name: str, prompts: list[list[int]], answers: dict[str, Answers], blobs: LocalBlobs
) -> None:
    manifest = networks.store(blobs, ARCHITECTURES[name])
    for expert in ARCHITECTURES[name].disabled_experts:
        manifest = networks.without_expert(manifest, expert, blobs)
    runner = network_runner.runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))
    for prompt, answer in zip(prompts, answers[name], strict=True):
        [expected] = runner.read([Continuation(tuple(prompt[:1]), tuple(prompt[1:]))])
        assert [top for top, _ in answer["positions"]] == list(expected.predicted)
        logprobs = [logprob for _, logprob in answer["positions"]]
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        [greedy] = runner.write([tuple(prompt)], num_tokens=NUM_GREEDY)
        assert answer["greedy"] == list(greedy.tokens)
