"""vLLM serves sparse checkpoints and checkpoints with removed layers as the reference network does.

vLLM runs in its own process, as in `test_model`.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from assembler.compression import pruning
from assembler.compression.structural_pruning import without_zeros
from assembler.network import network_runner
from assembler.network.model import Network
from engine.compression.sparsity_components import components
from engine.divergence.metrics import Continuation
from engine.vllm_plugin import tensors
from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import engine_environment
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import networks
from tests.engine.vllm_plugin.test_model import READER

pytestmark = pytest.mark.slow

DEEP = replace(tiny.ARCHITECTURE, num_hidden_layers=4)
# Matrices set to zero, which removes the first layer's attention, the second layer's FFN, and both
# in the third layer.
REMOVED = ("0.self_attn.v_proj", "1.mlp.up_proj", "2.self_attn.o_proj", "2.mlp.down_proj")


def store(name: str, blobs: LocalBlobs) -> Manifest:
    """Store a network with half of all weights zero, in the sparse format."""
    architectures: dict[str, Architecture] = {"mix": networks.NEXUS}
    manifest = networks.store(blobs, architectures.get(name, DEEP))
    stored = dict(manifest.tensors)
    for component in components(manifest):
        share = 1.0 if name == "removed" and component.name.endswith(REMOVED) else 0.5
        weight = f"{component.name}.weight"
        stored[weight] = pruning.store(blobs, tensors.read(blobs, stored[weight]), share)
    return without_zeros(replace(manifest, tensors=stored), blobs)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(64, (length,), generator=generator).tolist() for length in (5, 40)]


NAMES = ("sparse", "removed", "mix")


@pytest.fixture(scope="module")
def answers(
    prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    folders = [str(materialize(store(name, blobs), blobs, root=home / "s")) for name in NAMES]
    finished = subprocess.run(
        [sys.executable, str(READER), "8", *folders],
        input=json.dumps(prompts),
        env=engine_environment.environment(
            os.environ | {"OMP_NUM_THREADS": "1", "NEXUSMIX_HOME": str(home)}
        ),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return dict(zip(NAMES, json.loads(finished.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_vllm_equals_the_reference(
    name: str,
    prompts: list[list[int]],
    answers: dict[str, list[dict[str, Any]]],
    blobs: LocalBlobs,
) -> None:
    manifest = store(name, blobs)
    assert manifest.architecture.has_gaps == (name == "removed")
    assert any(entry.num_nonzero is not None for entry in manifest.tensors.values())
    runner = network_runner.runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))
    for prompt, answer in zip(prompts, answers[name], strict=True):
        [expected] = runner.read([Continuation(tuple(prompt[:1]), tuple(prompt[1:]))])
        assert [top for top, _ in answer["positions"]] == list(expected.predicted)
        logprobs = [logprob for _, logprob in answer["positions"]]
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        [greedy] = runner.write([tuple(prompt)], num_tokens=8)
        assert answer["greedy"] == list(greedy.tokens)
