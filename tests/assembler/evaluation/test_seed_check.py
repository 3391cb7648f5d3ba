"""A seed whose network computes no finite numbers is refused."""

from dataclasses import replace

import pytest
import torch

from assembler.evaluation import seed_check
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.tensor_names import EMBEDDINGS
from registry.errors import InvalidCheckpoint
from tests import tiny
from tests.assembler import base_networks


def test_seeds_of_all_kinds_of_networks_are_read(blobs: LocalBlobs) -> None:
    seed_check.check(tiny.store_manifest(blobs), blobs)
    seed_check.check(base_networks.store(blobs, base_networks.dense("qwen2")), blobs)


def test_a_seed_that_overflows_is_refused(blobs: LocalBlobs) -> None:
    seed = base_networks.store(blobs, base_networks.dense("granite"))
    huge = torch.full(seed.tensors[EMBEDDINGS].shape, 3e38).bfloat16()
    changed = replace(seed, tensors=seed.tensors | {EMBEDDINGS: tensors.write(blobs, huge)})
    with pytest.raises(InvalidCheckpoint, match="this seed, Granite 3, computes numbers that"):
        seed_check.check(changed, blobs)
