"""vLLM's int8 results equal the reference network's: integers add up to the same sums.

A position whose input is rounded to the other neighbor differs by more; on tiny networks that is
rare. vLLM runs in its own process, as in `test_model`.

Covers: int8_kernel.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler.compression import int8_checkpoint
from assembler.network import network_runner
from assembler.network.model import Network
from engine.compression import int8_units
from engine.divergence.metrics import Continuation
from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import engine_environment
from registry.blobs.blobs import BlobStore, LocalBlobs
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.exports import export
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import networks
from tests.engine.vllm_plugin.test_model import READER

pytestmark = pytest.mark.slow

ARCHITECTURES: dict[str, Architecture] = {
    "dense": tiny.ARCHITECTURE,
    "dense-untied": replace(tiny.ARCHITECTURE, tie_word_embeddings=False),
    "convex": networks.NEXUS,
    "sum": networks.ARCHITECTURES["sum"],
    "bam-shared-expert": networks.ARCHITECTURES["nexus-with-attention"],
}
# Architectures that vLLM supports without our plugin.
EXPORTED = ("dense", "dense-untied")
PROMPT_LENGTHS = (5, 17, 40)
# Tolerance of log-probabilities. A last bit may round an input to its other neighbor. One position
# of a text may therefore differ by more than float32 rounding, but none by more than this.
OTHER_ROUNDING_TOLERANCE = 1e-3

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
    """Return vLLM's output for the prompts, by model."""
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    stored = [store(blobs, architecture) for architecture in ARCHITECTURES.values()]
    folders = [str(materialize(manifest, blobs, root=home / "s")) for manifest in stored]
    for name in EXPORTED:
        folders.append(str(home / name))
        export(stored[list(ARCHITECTURES).index(name)], blobs, home / name, on_bytes=lambda _: None)
    names = [*ARCHITECTURES, *(f"{name}, exported" for name in EXPORTED)]
    return dict(zip(names, read(prompts, folders, home=home), strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vllm_equals_the_reference(
    name: str, prompts: list[list[int]], answers: dict[str, Answers], blobs: LocalBlobs
) -> None:
    manifest = store(blobs, ARCHITECTURES[name])
    check(answers[name], prompts, Network.from_manifest(manifest, blobs, dtype=torch.float32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
def test_vllm_equals_the_reference_with_int8_experts_on_a_gpu(
    prompts: list[list[int]], blobs: LocalBlobs, tmp_path: Path
) -> None:
    """No CPU kernel multiplies routed experts in int8."""
    manifest = store(blobs, networks.NEXUS, target="gpu")
    folder = str(materialize(manifest, blobs, root=tmp_path / "s"))
    [answer] = read(prompts, [folder], home=blobs.root.parent)
    check(answer, prompts, Network.from_manifest(manifest, blobs, dtype=torch.float32))


@pytest.mark.parametrize("name", EXPORTED)
def test_vllm_without_the_plugin_reads_an_exported_folder_equally(
    name: str, answers: dict[str, Answers]
) -> None:
    assert answers[f"{name}, exported"] == answers[name]


def read(prompts: list[list[int]], folders: list[str], *, home: Path) -> list[Answers]:
    """Return one list of answers per folder; `home` holds the store of their tensors."""
    finished = subprocess.run(
        [sys.executable, str(READER), "1", *folders],
        input=json.dumps(prompts),
        env=engine_environment.environment(
            os.environ | {"OMP_NUM_THREADS": "1", "NEXUSMIX_HOME": str(home)}
        ),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    answers: list[Answers] = json.loads(finished.stdout.splitlines()[-1])
    return answers


def check(answers: Answers, prompts: list[list[int]], network: Network) -> None:
    """Compare vLLM's answers with the reference network's readings."""
    for prompt, answer in zip(prompts, answers, strict=True):
        [expected] = network_runner.runner(network).read(
            [Continuation(tuple(prompt[:1]), tuple(prompt[1:]))]
        )
        assert [top for top, _ in answer["positions"]] == list(expected.predicted)
        logprobs = [logprob for _, logprob in answer["positions"]]
        assert logprobs == pytest.approx(expected.logprobs, abs=OTHER_ROUNDING_TOLERANCE)
        differences = [abs(a - b) for a, b in zip(logprobs, expected.logprobs, strict=True)]
        assert sum(difference > 1e-4 for difference in differences) <= 1


def store(
    blobs: BlobStore, architecture: Architecture, *, target: int8_units.Target = "cpu"
) -> Manifest:
    """Store a random network with all layers in int8 that the target can serve."""
    manifest = networks.store(blobs, architecture)
    units = int8_units.units(manifest, target)
    modules = int8_units.modules(units)
    return int8_checkpoint.write(manifest, modules, target=target, blobs=blobs)
