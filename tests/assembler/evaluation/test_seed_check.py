"""A seed whose network computes no finite numbers is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assembler.evaluation import seed_check
from engine.divergence.metrics import Reading
from engine.vllm_plugin import tensors
from registry.blobs import blob_stores
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


@pytest.mark.slow
def test_vllm_reads_a_seed_as_the_reference_does(home: Path) -> None:
    # Engines read the store of the settings.
    blobs = blob_stores.store()
    seed_check.check_served(tiny.store_manifest(blobs), blobs, log_path=home / "server.log")


@pytest.mark.long
def test_a_seed_that_vllm_reads_differently_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last digits of numerics are the only difference that can be had.
    blobs = blob_stores.store()
    seed = tiny.store_manifest(blobs)
    monkeypatch.setattr(seed_check, "MAX_DIFFERENCE", {"float32": 0.0, "bfloat16": 0.0})
    with pytest.raises(InvalidCheckpoint, match="differently than the reference network of this"):
        seed_check.check_served(seed, blobs, log_path=home / "server.log")


def test_readings_differ_by_the_mean_of_their_nats() -> None:
    first, second = Reading((1, 2), (-1.0, -2.0)), Reading((1, 2), (-1.5, -1.0))
    assert seed_check.mean_difference(first, second) == 0.75
