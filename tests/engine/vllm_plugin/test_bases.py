"""vLLM equals the reference network for every base, dense and mixed.

Log-probabilities are within 1e-4, and greedy tokens equal. One separate process runs vLLM for all
tests that are chosen, as in `test_model`. Other scalings of positions, and most dense networks, are
`long`: the networks of `assembler.network` are compared with transformers for all of them.

Covers: ffn.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Continuation
from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import engine_environment
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests.assembler import base_networks
from tests.assembler.base_networks import CONFIGS
from tests.engine.vllm_plugin.test_model import NUM_GREEDY, PROMPT_LENGTHS, READER, Answers

pytestmark = pytest.mark.slow

# Bases whose vLLM network differs from those of others, and the dense ones among them.
MIXED = {"llama-yarn", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "phi3", "granite", "smollm3"}
DENSE = {"qwen3", "gemma3"}
CASES = [
    pytest.param(
        name, is_mix, marks=() if name in (MIXED if is_mix else DENSE) else pytest.mark.long
    )
    for name in CONFIGS
    for is_mix in (False, True)
]


def manifest_of(name: str, blobs: LocalBlobs, *, is_mix: bool) -> Manifest:
    architecture = base_networks.mixed(name) if is_mix else base_networks.dense(name)
    return base_networks.store(blobs, architecture)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randint(base_networks.COMMON["vocab_size"], (length,), generator=generator).tolist()
        for length in PROMPT_LENGTHS
    ]


@pytest.fixture(scope="module")
def answers(
    request: pytest.FixtureRequest,
    prompts: list[list[int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, bool], Answers]:
    """Return vLLM's output for the prompts, by network, of the tests that are chosen."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [test.callspec.params for test in tests if test.path == request.path]
    cases = [(str(params["name"]), bool(params["is_mix"])) for params in chosen]
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    stored = [manifest_of(name, blobs, is_mix=is_mix) for name, is_mix in cases]
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
    return dict(zip(cases, json.loads(finished.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("name", "is_mix"), CASES)
def test_vllm_equals_the_reference(
    name: str,
    is_mix: bool,
    prompts: list[list[int]],
    answers: dict[tuple[str, bool], Answers],
    blobs: LocalBlobs,
) -> None:
    manifest = manifest_of(name, blobs, is_mix=is_mix)
    runner = network_runner.runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))
    for prompt, answer in zip(prompts, answers[name, is_mix], strict=True):
        [expected] = runner.read([Continuation(tuple(prompt[:1]), tuple(prompt[1:]))])
        assert [top for top, _ in answer["positions"]] == list(expected.predicted)
        logprobs = [logprob for _, logprob in answer["positions"]]
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        [greedy] = runner.write([tuple(prompt)], num_tokens=NUM_GREEDY)
        assert answer["greedy"] == list(greedy.tokens)
