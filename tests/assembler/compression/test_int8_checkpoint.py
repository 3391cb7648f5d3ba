"""An int8 checkpoint is close to its original and equals the network with int8 layers."""

from dataclasses import replace

import pytest
import torch

from assembler.compression import int8_checkpoint
from assembler.compression.smoothquant import smooth
from assembler.network.int8_linear import Int8Linear, as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.int8_units import Target
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from tests import tiny
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES, int8_modules

TOKENS = torch.randint(64, (2, 19), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_no_integer_is_too_large_for_the_target(target: Target, blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    modules = int8_modules(manifest, target)
    compressed = int8_checkpoint.write(manifest, modules, target=target, blobs=blobs)
    largest = {
        int(tensors.read(blobs, compressed.tensors[f"{module}.weight"]).abs().max())
        for module in modules
    }
    assert largest == {int8_units.LARGEST_WEIGHT[target]}


@pytest.mark.parametrize("name", ["dense", "untied", "convex", "convex-top-2", "btx", "bam"])
@torch.inference_mode()
def test_a_compressed_checkpoint_equals_the_network_with_int8_layers(
    name: str, blobs: LocalBlobs
) -> None:
    """Routed experts are included, although no CPU serves them in int8."""
    manifest = networks.store(blobs, ARCHITECTURES[name])
    modules = int8_modules(manifest, "gpu")
    compressed = int8_checkpoint.write(manifest, modules, target="gpu", blobs=blobs)
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    before = network(TOKENS)
    with as_int8(network, modules, target="gpu"):
        expected = network(TOKENS)
    made = Network.from_manifest(compressed, blobs, dtype=torch.float32)(TOKENS)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)
    torch.testing.assert_close(network(TOKENS), before, rtol=0, atol=0)
    assert not torch.equal(made, before)


@torch.inference_mode()
def test_routed_experts_in_int8_are_close_to_their_originals(blobs: LocalBlobs) -> None:
    """Weights converted back to floats differ only by the rounding of inputs."""
    manifest = networks.store(blobs, ARCHITECTURES["convex"])
    modules = [m for m in int8_modules(manifest, "gpu") if ".experts." in m]
    assert len(modules) == 2 * networks.NUM_EXPERTS * 3
    compressed = int8_checkpoint.write(manifest, modules, target="gpu", blobs=blobs)
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
    compressed = int8_checkpoint.write(
        manifest, int8_modules(manifest, "cpu"), target="cpu", blobs=blobs
    )
    assert manifests.load(blobs, compressed.digest) == compressed
    shapes = {name: entry.shape for name, entry in compressed.tensors.items()}
    assert shapes == compressed.tensor_shapes
    saved = sum(unit.num_bytes_saved for unit in int8_units.units(manifest, "cpu"))
    assert compressed.num_bytes == manifest.num_bytes - saved
    assert int8_units.num_bytes(manifest, int8_units.units(manifest, "cpu")) == (
        compressed.num_bytes
    )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["dense", "untied", "convex", "bam"])
@torch.inference_mode()
def test_a_smoothed_checkpoint_is_the_smoothed_network(
    name: str, half: bool, blobs: LocalBlobs
) -> None:
    """Some smoothed layers may stay in float."""
    manifest = networks.store(blobs, ARCHITECTURES[name])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    units = int8_units.units(manifest, "gpu")
    smoothings = smooth(network, units, target="gpu", read=lambda: network(TOKENS))
    modules = int8_units.modules(units[:: 1 + half])
    with as_int8(network, modules, target="gpu"):
        expected = network(TOKENS)
    compressed = int8_checkpoint.write(
        manifest, modules, target="gpu", blobs=blobs, smoothings=smoothings
    )
    assert compressed.tensors.keys() == compressed.tensor_shapes.keys()
    made = Network.from_manifest(compressed, blobs, dtype=torch.float32)(TOKENS)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)


def test_tensors_that_no_int8_layer_reads_are_not_stored_again(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    units = int8_units.units(manifest, "cpu")
    smoothings = smooth(network, units, target="cpu", read=lambda: network(TOKENS))
    compressed = int8_checkpoint.write(
        manifest, units[0].modules, target="cpu", blobs=blobs, smoothings=smoothings
    )
    changed = {
        name for name, entry in manifest.tensors.items() if compressed.tensors[name] != entry
    }
    weights = {f"{module}.weight" for module in units[0].modules}
    assert changed == weights | {"model.layers.0.input_layernorm.weight"}


def test_a_sparse_tensor_stays_sparse(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    name = "model.layers.0.self_attn.v_proj.weight"
    values = tensors.read(blobs, manifest.tensors[name]).clone()
    values[:, ::2] = 0
    entry = tensors.write(blobs, values, sparse=True)
    assert entry.num_nonzero is not None
    manifest = replace(manifest, tensors={**manifest.tensors, name: entry})
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    units = int8_units.units(manifest, "cpu")
    smoothings = smooth(network, units, target="cpu", read=lambda: network(TOKENS))
    compressed = int8_checkpoint.write(
        manifest, units[1].modules, target="cpu", blobs=blobs, smoothings=smoothings
    )
    assert compressed.tensors[name] != entry
    assert compressed.tensors[name].num_nonzero == entry.num_nonzero
