"""The fast network equals the readable one: every prompt logprob within 1e-4, every greedy token.

vLLM runs in one process of its own for all of them: it warns, changes global state, and takes long
to import.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler import evaluate
from assembler.network import Network
from engine import server, tensors
from engine.divergence import Continuation
from engine.model_folder import materialise
from registry.blobs import BlobStore, LocalBlobs
from registry.manifests import Manifest
from tests import tiny
from tests.assembler import mixes

pytestmark = pytest.mark.slow

READER = Path(__file__).with_name("vllm_reader.py")
PROMPT_LENGTHS = (5, 17, 40)
NUM_GREEDY = 12

Answers = list[dict[str, Any]]

MODELS: dict[str, Callable[[BlobStore], Manifest]] = {
    "dense": lambda blobs: tiny.store_manifest(blobs, expert=1),
    "convex": lambda blobs: mixes.store_mix(blobs, combine="convex"),
    "convex-top-2": lambda blobs: mixes.store_mix(blobs, combine="convex", experts_per_token=2),
    "sum": lambda blobs: mixes.store_mix(blobs, combine="sum"),
    "sum-top-2": lambda blobs: mixes.store_mix(blobs, combine="sum", experts_per_token=2),
    "disabled": lambda blobs: disable_last_expert(mixes.store_mix(blobs)),
}


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
    folders = [str(materialise(make(blobs), blobs, root=home / "s")) for make in MODELS.values()]
    finished = subprocess.run(
        [sys.executable, str(READER), str(NUM_GREEDY), *folders],
        input=json.dumps(prompts),
        env=server.environment(os.environ | {"OMP_NUM_THREADS": "1", "NEXUSMIX_HOME": str(home)}),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return dict(zip(MODELS, json.loads(finished.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_vllm_equals_the_reference(
    name: str, prompts: list[list[int]], answers: dict[str, Answers], blobs: LocalBlobs
) -> None:
    manifest = MODELS[name](blobs)
    if name == "disabled":
        manifest = remove_last_expert(manifest, blobs)
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    for prompt, answer in zip(prompts, answers[name], strict=True):
        [expected] = evaluate.teacher_forced(
            network, [Continuation(tuple(prompt[:1]), tuple(prompt[1:]))]
        )
        assert [top for top, _ in answer["positions"]] == list(expected.predicted)
        logprobs = [logprob for _, logprob in answer["positions"]]
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        [greedy] = evaluate.greedy_continuations(
            network, torch.tensor([prompt]), num_tokens=NUM_GREEDY
        )
        assert answer["greedy"] == list(greedy.tokens)


def disable_last_expert(mix: Manifest) -> Manifest:
    return replace(mix, config=mix.config | {"disabled_experts": [mixes.NUM_EXPERTS - 1]})


def remove_last_expert(mix: Manifest, blobs: BlobStore) -> Manifest:
    """What disabling must amount to: the softmax runs over the others only."""
    last = mixes.NUM_EXPERTS - 1
    kept = {}
    for name, entry in mix.tensors.items():
        if f".experts.{last}." in name:
            continue
        if name.endswith("mlp.gate.weight") or name == "model.domain_embeddings":
            entry = tensors.write(blobs, tensors.read(blobs, entry)[:last])
        kept[name] = entry
    names = mix.config["expert_names"][:last]
    config = mix.config | {"num_experts": last, "expert_names": names, "disabled_experts": []}
    return replace(mix, config=config, tensors=kept)
