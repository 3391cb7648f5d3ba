"""The effect of small input changes on networks in float and in int8."""

import pytest
import torch

from assembler.compression import int8_checkpoint
from assembler.evaluation import perturbation
from assembler.evaluation.perturbation import NUM_DRAWS, perturbed
from assembler.network import network_runner
from assembler.network.model import Network
from engine.compression import int8_units
from engine.divergence.metrics import Continuation, logprob_difference
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.manifests import Manifest
from tests import tiny

TOKENS = torch.randint(0, 60, (4, 24), generator=torch.Generator().manual_seed(0))


TEXTS = [Continuation(tuple(row[:8]), tuple(row[8:]), (0.1,) * 16) for row in TOKENS.tolist()]


def store(blobs: LocalBlobs, *, in_int8: bool) -> Manifest:
    manifest = tiny.store_manifest(blobs)
    if in_int8:
        modules = int8_units.modules(int8_units.units(manifest, "cpu"))
        manifest = int8_checkpoint.write(manifest, modules, target="cpu", blobs=blobs)
        assert int8_modules(manifest.config)
    return manifest


def network_of(blobs: LocalBlobs, *, in_int8: bool) -> Network:
    return Network.from_manifest(store(blobs, in_int8=in_int8), blobs, dtype=torch.float32)


@torch.inference_mode()
def moved(network: Network) -> float:
    """Return the largest change of a logit."""
    before = network(TOKENS)
    with perturbed(network, seed=1):
        after = network(TOKENS)
    assert torch.equal(network(TOKENS), before)
    return float((after - before).abs().max())


def test_int8_amplifies_small_changes(blobs: LocalBlobs) -> None:
    assert 0 < moved(network_of(blobs, in_int8=False)) < 1e-4
    assert moved(network_of(blobs, in_int8=True)) > 1e-4


def test_every_draw_differs(blobs: LocalBlobs) -> None:
    found = perturbation.readings(network_of(blobs, in_int8=True), TEXTS)
    assert len(found) == NUM_DRAWS
    assert len({tuple(readings[0].logprobs) for readings in found.values()}) == NUM_DRAWS


@pytest.mark.parametrize("in_int8", [False, True])
def test_bfloat16_differs_more_than_another_order_of_sums(in_int8: bool, blobs: LocalBlobs) -> None:
    manifest = store(blobs, in_int8=in_int8)
    expected = network_runner.of_manifest(manifest, blobs).read(TEXTS)
    network = Network.from_manifest(manifest, blobs, dtype=torch.bfloat16)
    found = perturbation.in_bfloat16(network, TEXTS)
    strayed = [logprob_difference(reading, expected) for reading in found.values()]
    assert len(set(strayed)) == 1 + NUM_DRAWS
    assert all(1e-4 < difference < 0.1 for difference in strayed)
