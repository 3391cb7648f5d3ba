"""Which matrices are components, and the share of zeros of all of them."""

import pytest

from engine.compression import int8_units, sparsity_components
from engine.compression.sparsity_components import total_share
from registry.blobs.blobs import LocalBlobs
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES, NUM_EXPERTS
from tests.engine.compression.test_int8_units import first_in_int8


@pytest.mark.parametrize(
    ("name", "per_layer"),
    [
        ("dense", 7),
        ("convex", 4 + 3 * (NUM_EXPERTS + 1)),
        ("btx", 4 + 3 * NUM_EXPERTS),
        ("bam", 7 * NUM_EXPERTS),
        ("bam-shared-kv", 2 + 5 * NUM_EXPERTS),
    ],
)
def test_components_are_all_matrices_of_attention_and_ffns(
    name: str, per_layer: int, blobs: LocalBlobs
) -> None:
    manifest = networks.store(blobs, ARCHITECTURES[name])
    parts = sparsity_components.components(manifest)
    assert len(parts) == 2 * per_layer
    assert [component.layer for component in parts] == [0] * per_layer + [1] * per_layer
    assert all(manifest.tensors[c.name + ".weight"].num_numbers == c.num_weights for c in parts)


def test_kinds_of_components(blobs: LocalBlobs) -> None:
    parts = sparsity_components.components(networks.store(blobs, ARCHITECTURES["bam"]))
    kinds = [component.kind for component in parts]
    assert kinds.count("attention") == 2 * 4 * NUM_EXPERTS
    assert kinds.count("ffn") == 2 * 3 * NUM_EXPERTS


def test_int8_layers_are_no_components(blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, ARCHITECTURES["dense"])
    int8_names = int8_units.units(manifest, "cpu")[0].modules
    parts = sparsity_components.components(first_in_int8(manifest, "cpu"))
    assert len(parts) == 2 * 7 - len(int8_names)
    assert not {component.name for component in parts} & set(int8_names)


def test_total_share_weighs_components_by_size(blobs: LocalBlobs) -> None:
    parts = sparsity_components.components(networks.store(blobs, ARCHITECTURES["dense"]))
    shares = {parts[0].name: 0.5}
    weights = sum(component.num_weights for component in parts)
    assert total_share(parts, shares) == pytest.approx(parts[0].num_weights / 2 / weights)
