"""What vLLM computes in int8 equals the reference network: integers add up to the same sums.

An input that is rounded to its other neighbour would differ by more; on tiny networks none is.
vLLM runs in one process of its own, as in `test_vllm_model`.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from assembler import evaluate, quantisation
from assembler.network import Network
from engine import compression, server
from engine.divergence import Continuation
from engine.model_folder import materialise
from registry.architecture import Architecture
from registry.blobs import BlobStore, LocalBlobs
from registry.exports import export
from registry.manifests import Manifest
from tests import tiny
from tests.assembler import networks
from tests.engine.test_vllm_model import READER

pytestmark = pytest.mark.slow

ARCHITECTURES: dict[str, Architecture] = {
    "dense": tiny.ARCHITECTURE,
    "dense-untied": replace(tiny.ARCHITECTURE, tie_word_embeddings=False),
    "convex": networks.NEXUS,
    "sum": networks.ARCHITECTURES["sum"],
    "bam-shared-expert": networks.ARCHITECTURES["nexus-with-attention"],
}
# Those that vLLM knows without us.
EXPORTED = ("dense", "dense-untied")
PROMPT_LENGTHS = (5, 17, 40)

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
    """What vLLM says about the prompts, by model."""
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    stored = [store(blobs, architecture) for architecture in ARCHITECTURES.values()]
    folders = [str(materialise(manifest, blobs, root=home / "s")) for manifest in stored]
    for name in EXPORTED:
        folders.append(str(home / name))
        export(stored[list(ARCHITECTURES).index(name)], blobs, home / name, on_bytes=lambda _: None)
    finished = subprocess.run(
        [sys.executable, str(READER), "1", *folders],
        input=json.dumps(prompts),
        env=server.environment(os.environ | {"OMP_NUM_THREADS": "1", "NEXUSMIX_HOME": str(home)}),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    names = [*ARCHITECTURES, *(f"{name}, exported" for name in EXPORTED)]
    return dict(zip(names, json.loads(finished.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vllm_equals_the_reference(
    name: str, prompts: list[list[int]], answers: dict[str, Answers], blobs: LocalBlobs
) -> None:
    network = Network.from_manifest(store(blobs, ARCHITECTURES[name]), blobs, dtype=torch.float32)
    for prompt, answer in zip(prompts, answers[name], strict=True):
        [expected] = evaluate.teacher_forced(
            network, [Continuation(tuple(prompt[:1]), tuple(prompt[1:]))]
        )
        assert [top for top, _ in answer["positions"]] == list(expected.predicted)
        logprobs = [logprob for _, logprob in answer["positions"]]
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("name", EXPORTED)
def test_stock_vllm_reads_an_exported_folder_alike(name: str, answers: dict[str, Answers]) -> None:
    assert answers[f"{name}, exported"] == answers[name]


def store(blobs: BlobStore, architecture: Architecture) -> Manifest:
    """A random network with all that a CPU serves in int8."""
    manifest = networks.store(blobs, architecture)
    units = compression.units(manifest, "cpu")
    modules = [module for unit in units for module in unit.modules]
    return quantisation.compress(manifest, modules, target="cpu", blobs=blobs)
