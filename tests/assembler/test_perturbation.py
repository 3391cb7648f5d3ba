"""What a nudge of the inputs makes of networks in float and in int8."""

import torch

from assembler import int8_checkpoint, perturbation
from assembler.network import Network
from assembler.perturbation import NUM_DRAWS, perturbed
from engine import compression
from engine.divergence.metrics import Continuation
from registry.blobs import LocalBlobs
from registry.quantisation import int8_modules
from tests import tiny

TOKENS = torch.randint(0, 60, (4, 24), generator=torch.Generator().manual_seed(0))


def network_of(blobs: LocalBlobs, *, in_int8: bool) -> Network:
    manifest = tiny.store_manifest(blobs)
    if in_int8:
        modules = compression.modules(compression.units(manifest, "cpu"))
        manifest = int8_checkpoint.write(manifest, modules, target="cpu", blobs=blobs)
        assert int8_modules(manifest.config)
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


@torch.inference_mode()
def moved(network: Network) -> float:
    """How far the logits are moved, at most."""
    before = network(TOKENS)
    with perturbed(network, seed=1):
        after = network(TOKENS)
    assert torch.equal(network(TOKENS), before)
    return float((after - before).abs().max())


def test_int8_makes_steps_of_what_floats_hardly_feel(blobs: LocalBlobs) -> None:
    assert 0 < moved(network_of(blobs, in_int8=False)) < 1e-4
    assert moved(network_of(blobs, in_int8=True)) > 1e-4


def test_each_draw_is_another(blobs: LocalBlobs) -> None:
    texts = [Continuation(tuple(row[:8]), tuple(row[8:]), (0.1,) * 16) for row in TOKENS.tolist()]
    found = perturbation.readings(network_of(blobs, in_int8=True), texts)
    assert len(found) == NUM_DRAWS
    assert len({tuple(own[0].logprobs) for own in found.values()}) == NUM_DRAWS
