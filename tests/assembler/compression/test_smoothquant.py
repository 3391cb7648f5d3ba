"""Smoothing changes no bit of the output, and makes int8 more exact."""

import pytest
import torch

from assembler.compression.smoothquant import smooth
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from registry.blobs.blobs import LocalBlobs
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES, int8_modules

TOKENS = torch.randint(64, (2, 19), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_a_smoothed_network_is_equal_bit_for_bit(
    name: str, dtype: torch.dtype, blobs: LocalBlobs
) -> None:
    manifest = networks.store(blobs, ARCHITECTURES[name])
    network = Network.from_manifest(manifest, blobs, dtype=dtype)
    before = network(TOKENS)
    units = int8_units.units(manifest, "gpu")
    smoothings = smooth(network, units, target="gpu", read=lambda: network(TOKENS))
    assert smoothings
    assert torch.equal(network(TOKENS), before)


@torch.inference_mode()
def test_outliers_cost_int8_less(blobs: LocalBlobs) -> None:
    """Some channels are a hundred times as large as the others, and their weights a hundred times
    smaller, as in real networks: one before attention and one before each FFN."""
    manifest = networks.store(blobs, ARCHITECTURES["dense"])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    for block in network.model.layers:
        for norm in ("input_layernorm", "post_attention_layernorm"):
            block.get_parameter(f"{norm}.weight")[3] *= 100
        for reader in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            block.get_parameter(f"{reader}.weight")[:, 3] /= 100
        for reader in ("mlp.gate_proj", "mlp.up_proj"):
            block.get_parameter(f"{reader}.weight")[:, 3] /= 100
    modules, units = int8_modules(manifest, "cpu"), int8_units.units(manifest, "cpu")

    def error() -> float:
        expected = network(TOKENS)
        with as_int8(network, modules, target="cpu"):
            return float((network(TOKENS) - expected).square().mean())

    before = error()
    smooth(network, units, target="cpu", read=lambda: network(TOKENS))
    assert error() < before / 4


def test_a_channel_of_zeros_is_not_changed(blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, ARCHITECTURES["dense"])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    norm = network.get_parameter("model.layers.0.input_layernorm.weight")
    norm[5] = 0
    units = int8_units.units(manifest, "cpu")
    smooth(network, units, target="cpu", read=lambda: network(TOKENS))
    assert norm[5] == 0
    assert all(bool(p.isfinite().all()) for p in network.parameters())


def test_int8_and_removed_layers_are_not_smoothed(blobs: LocalBlobs) -> None:
    """An int8 layer keeps its scales, so the layer that reads its output is not smoothed."""
    manifest = networks.store(blobs, ARCHITECTURES["dense"])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    units = [u for u in int8_units.units(manifest, "cpu") if u.name.endswith("o_proj")]
    with as_int8(network, ["model.layers.0.self_attn.v_proj"], target="cpu"):
        smoothings = smooth(network, units, target="cpu", read=lambda: network(TOKENS))
    assert {s.producer for s in smoothings} == {"model.layers.1.self_attn.v_proj.weight"}
