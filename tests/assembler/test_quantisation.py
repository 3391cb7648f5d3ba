"""int8 in the reference network: near what it stands for, and the same from a checkpoint."""

from dataclasses import replace

import pytest
import torch

from assembler.network import Network
from assembler.quantisation import Int8Linear, as_int8, compress, quantise
from engine import compression, tensors
from engine.compression import Target
from registry import manifests
from registry.blobs import LocalBlobs
from registry.manifests import Manifest
from tests import tiny
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES

TOKENS = torch.randint(64, (2, 19), generator=torch.Generator().manual_seed(1))


def modules_of(manifest: Manifest, target: Target) -> list[str]:
    return [module for unit in compression.units(manifest, target) for module in unit.modules]


def test_rows_are_whole_numbers_of_their_own_scale() -> None:
    rows = torch.tensor([[-2.0, 1.0, 0.5], [0.0, 0.0, 0.0], [1e-6, 3e-6, -3e-6]])
    integers, scales = quantise(rows)
    assert integers.tolist() == [[-127, 64, 32], [0, 0, 0], [42, 127, -127]]
    assert (integers * scales - rows).abs().le(scales / 2 + 1e-12).all()


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_no_integer_is_beyond_what_the_target_adds_up(target: Target, blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    modules = modules_of(manifest, target)
    compressed = compress(manifest, modules, target=target, blobs=blobs)
    largest = {
        int(tensors.read(blobs, compressed.tensors[f"{module}.weight"]).abs().max())
        for module in modules
    }
    assert largest == {compression.LARGEST_WEIGHT[target]}


def test_a_layer_computes_what_integers_would() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 96, generator=generator), torch.randn(7, 96, generator=generator)
    linear = Int8Linear.of(weight, largest_weight=127)
    integers, scales = quantise(x)
    sums = integers.to(torch.int32) @ linear.weight.to(torch.int32).mT
    expected = sums.double() * scales.double() * linear.weight_scale.mT.double()
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(linear(x), x @ weight.mT, rtol=0, atol=0.5)


@pytest.mark.parametrize("name", ["dense", "untied", "convex", "convex-top-2", "btx", "bam"])
@torch.inference_mode()
def test_a_compressed_checkpoint_is_the_network_with_its_layers_in_int8(
    name: str, blobs: LocalBlobs
) -> None:
    """Routed experts too, which no CPU serves in int8."""
    manifest = networks.store(blobs, ARCHITECTURES[name])
    modules = modules_of(manifest, "gpu")
    compressed = compress(manifest, modules, target="gpu", blobs=blobs)
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    before = network(TOKENS)
    with as_int8(network, modules, target="gpu"):
        expected = network(TOKENS)
    made = Network.from_manifest(compressed, blobs, dtype=torch.float32)(TOKENS)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)
    torch.testing.assert_close(network(TOKENS), before, rtol=0, atol=0)
    assert not torch.equal(made, before)


@torch.inference_mode()
def test_routed_experts_in_int8_are_near_what_they_stand_for(blobs: LocalBlobs) -> None:
    """Their weights put back into floats differ by the rounding of inputs alone."""
    manifest = networks.store(blobs, ARCHITECTURES["convex"])
    modules = [m for m in modules_of(manifest, "gpu") if ".experts." in m]
    assert len(modules) == 2 * networks.NUM_EXPERTS * 3
    compressed = compress(manifest, modules, target="gpu", blobs=blobs)
    made = Network.from_manifest(compressed, blobs, dtype=torch.float32)
    floats = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    for module in modules:
        linear = made.get_submodule(module)
        assert isinstance(linear, Int8Linear)
        put_back = torch.nn.Parameter(linear.weight * linear.weight_scale, requires_grad=False)
        floats.get_submodule(module).weight = put_back
    torch.testing.assert_close(made(TOKENS), floats(TOKENS), rtol=0, atol=0.1)


def test_a_compressed_checkpoint_is_an_ordinary_manifest(blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, replace(networks.NEXUS, tie_word_embeddings=False))
    compressed = compress(manifest, modules_of(manifest, "cpu"), target="cpu", blobs=blobs)
    assert manifests.load(blobs, compressed.digest) == compressed
    shapes = {name: entry.shape for name, entry in compressed.tensors.items()}
    assert shapes == compressed.tensor_shapes
    saved = sum(unit.num_bytes_saved for unit in compression.units(manifest, "cpu"))
    assert compressed.num_bytes == manifest.num_bytes - saved
    assert compression.num_bytes(manifest, compression.units(manifest, "cpu")) == (
        compressed.num_bytes
    )
