"""Weights and masks in one batch equal the reference networks of mixes assembled without experts.

One separate process runs vLLM for all kinds of mixes, as in `test_model`.

Covers: scheduler, steering.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import engine_environment
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import base_networks, networks
from tests.assembler.networks import ARCHITECTURES
from tests.engine.vllm_plugin.attribution.reference import Reference

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
READER = "tests.engine.vllm_plugin.attribution.steered_reader"
NUM_TOKENS = 12
# Every way to combine experts, both kinds of routed attention, and a base of another network.
KINDS = (
    "convex",
    "convex-top-2",
    "convex-disabled",
    "sum",
    "sum-renormalized",
    "mlp",
    "btx",
    "bam-top-2",
    "bam-shared-kv-parallel",
    "qwen3",
)
MASKS = ((), (0,), (1,), (0, 1))
CHUNKED = {"max_num_batched_tokens": 32, "max_num_seqs": 16}

Request = dict[str, Any]


def architecture_of(kind: str) -> Architecture:
    return ARCHITECTURES[kind] if kind in ARCHITECTURES else base_networks.mixed(kind)


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    vocabulary = tiny.ARCHITECTURE.vocab_size
    return [torch.randint(vocabulary, (n,), generator=generator).tolist() for n in lengths]


def request(
    tokens: list[int], disabled: tuple[int, ...], *, num_tokens: int, **asked: bool
) -> Request:
    """Return a request of the reader. As in serving, every mask has a salt."""
    return {
        "prompt": tokens,
        "num_tokens": num_tokens,
        "asked": {"disabled": disabled, **asked},
        "salt": f"without {disabled}" if disabled else None,
    }


def requests_of(a: Architecture) -> list[Request]:
    """Return requests with all masks that leave an expert, some with blocks, some with prompts."""
    masks = [m for m in MASKS if not m or len({*m, *a.disabled_experts}) < a.num_experts]
    pairs = [(prompt, mask) for prompt in prompts(5, 17, 40) for mask in masks]
    return [
        request(prompt, mask, num_tokens=NUM_TOKENS, blocks=i % 2 == 0, prompt=i % 3 == 0)
        for i, (prompt, mask) in enumerate(pairs)
    ]


CROWDED_KIND = "convex-top-2"
FEW_BLOCKS = {"num_gpu_blocks_override": 10, "block_size": 32}
CROWD = [
    request(prompt, mask, num_tokens=70, blocks=bool(mask))
    for prompt in prompts(40, 50)
    for mask in ((), (1,), (0, 2))
]


def run(jobs: list[tuple[str, list[Request], dict[str, int]]], home: Path) -> dict[str, Any]:
    """Return what the reader writes about model folders, their requests and options."""
    variables = {"OMP_NUM_THREADS": "1", "NEXUSMIX_HOME": str(home)}
    finished = subprocess.run(
        [sys.executable, "-m", READER],
        input=json.dumps(jobs),
        env=engine_environment.environment(os.environ | variables),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    answers: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answers


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
    return LocalBlobs(tmp_path_factory.mktemp("home") / "blobs")


def store(kind: str, blobs: LocalBlobs) -> tuple[Manifest, str]:
    """Store a mix; return its manifest and its model folder."""
    a = architecture_of(kind)
    stored = networks.store(blobs, a) if kind in ARCHITECTURES else base_networks.store(blobs, a)
    return stored, str(materialize(stored, blobs, root=blobs.root.parent / "s"))


@pytest.fixture(scope="module")
def read(shelf: LocalBlobs) -> dict[str, Any]:
    """Return what the reader wrote: the answers of all kinds, of the crowd, of a dense network."""
    jobs = [(store(kind, shelf)[1], requests_of(architecture_of(kind)), CHUNKED) for kind in KINDS]
    jobs.append((store(CROWDED_KIND, shelf)[1], CROWD, CHUNKED | FEW_BLOCKS))
    jobs.append((store("dense", shelf)[1], requests_of(tiny.ARCHITECTURE), CHUNKED))
    return run(jobs, shelf.root.parent)


def check(reference: Reference, request: Request, answer: dict[str, Any]) -> None:
    """Assert that an answer equals the reference: its tokens, and every row."""
    prompt, asked, rows = request["prompt"], request["asked"], answer["rows"]
    disabled, blocks = asked["disabled"], asked.get("blocks", False)
    head = len(prompt) - 1
    if not asked.get("prompt"):
        _, weights_TLM = reference.read(prompt, disabled=disabled)
        read = weights_TLM[answer["cached"] : head].sum(0)
        expected = read if blocks else read.mean(0)
        torch.testing.assert_close(torch.tensor(rows[0]), expected, rtol=0, atol=1e-4)
        rows = [None] * head + rows[1:]
    first = 0 if asked.get("prompt") else head
    reference.check(
        prompt, answer["tokens"], rows[first:], disabled=disabled, blocks=blocks, first=first
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_equals_mixes_assembled_without_the_experts(
    kind: str, read: dict[str, Any], blobs: LocalBlobs
) -> None:
    reference = Reference.of(store(kind, blobs)[0], blobs)
    answers = read["answers"][KINDS.index(kind)]
    for request, answer in zip(requests_of(architecture_of(kind)), answers, strict=True):
        check(reference, request, answer)


def test_requests_that_give_way_count_once(read: dict[str, Any], blobs: LocalBlobs) -> None:
    """The cache holds fewer blocks than the requests fill."""
    assert read["preempted"] > 0
    reference = Reference.of(store(CROWDED_KIND, blobs)[0], blobs)
    for asked, answer in zip(CROWD, read["answers"][-2], strict=True):
        check(reference, asked, answer)


def test_a_network_without_experts_has_no_rows(read: dict[str, Any]) -> None:
    answers = read["answers"][-1]
    assert answers
    assert all(answer["rows"] is None for answer in answers)
    assert all(len(answer["tokens"]) == NUM_TOKENS for answer in answers)
