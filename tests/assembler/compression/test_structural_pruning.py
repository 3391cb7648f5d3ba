"""Removing parts that are zero leaves the output of the network unchanged."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from assembler.compression.structural_pruning import without_zeros
from assembler.network.attention import Cache
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.sparsity_components import components
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import networks

DEEP = replace(tiny.ARCHITECTURE, num_hidden_layers=3)

Change = Callable[[Tensor], object]


def changed(
    manifest: Manifest, blobs: LocalBlobs, changes: Iterable[tuple[str, Change]]
) -> Manifest:
    """Return the checkpoint with some changed matrices, stored sparse where that is smaller."""
    entries = dict(manifest.tensors)
    for name, change in changes:
        weight = tensors.read(blobs, entries[f"model.layers.{name}_proj.weight"]).clone()
        change(weight)
        entries[f"model.layers.{name}_proj.weight"] = tensors.write(blobs, weight, sparse=True)
    return replace(manifest, tensors=entries)


def rows(start: int, end: int) -> Change:
    return lambda weight: weight[start:end].zero_()


def columns(start: int, end: int) -> Change:
    return lambda weight: weight[:, start:end].zero_()


@pytest.fixture
def manifest(blobs: LocalBlobs) -> Manifest:
    return networks.store(blobs, DEEP)


def logits(manifest: Manifest, blobs: LocalBlobs) -> Tensor:
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    tokens = torch.randint(64, (3, 20), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        whole: Tensor = network(tokens)
        cache = Cache()
        parts = [network(part, cache=cache) for part in torch.split(tokens, 7, dim=1)]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)
    return whole


# The name of a case, the matrices set to zero, and the expected widths and layers.
CASES: dict[str, tuple[list[tuple[str, Change]], tuple[int, ...], tuple[int, ...]]] = {
    "values": ([("1.self_attn.v", rows(0, 64))], (), (1,)),
    "outputs": ([("0.self_attn.o", columns(0, 128))], (), (0,)),
    "values of one group, outputs of the other": (
        [("2.self_attn.v", rows(0, 32)), ("2.self_attn.o", columns(64, 128))],
        (),
        (2,),
    ),
    "gate": ([("1.mlp.gate", rows(0, 64))], (64, 0, 64), ()),
    "input": ([("0.mlp.up", rows(0, 64))], (0, 64, 64), ()),
    "output": ([("2.mlp.down", columns(0, 64))], (64, 64, 0), ()),
    "columns, each by another": (
        [("1.mlp.gate", rows(0, 10)), ("1.mlp.up", rows(20, 33)), ("1.mlp.down", columns(40, 55))],
        (64, 32, 64),
        (),
    ),
    "too few columns for a multiple": ([("1.mlp.gate", rows(3, 20))], (), ()),
    "a whole layer": (
        [("0.self_attn.v", rows(0, 64)), ("0.mlp.up", rows(0, 64))],
        (0, 64, 64),
        (0,),
    ),
    "queries, which only make attention even": ([("1.self_attn.q", rows(0, 128))], (), ()),
    "values of one group alone": ([("1.self_attn.v", rows(0, 32))], (), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_output_is_that_of_the_zeros(case: str, manifest: Manifest, blobs: LocalBlobs) -> None:
    changes, ffn_sizes, without_attention = CASES[case]
    zeros = changed(manifest, blobs, changes)
    made = without_zeros(zeros, blobs)
    assert made.architecture.ffn_sizes == ffn_sizes
    assert made.architecture.layers_without_attention == without_attention
    assert (made is zeros) == (not ffn_sizes and not without_attention)
    assert {n: t.shape for n, t in made.tensors.items()} == made.architecture.tensor_shapes()
    assert torch.allclose(logits(made, blobs), logits(zeros, blobs), atol=1e-5)


def test_more_parts_can_be_removed_later(manifest: Manifest, blobs: LocalBlobs) -> None:
    first = without_zeros(changed(manifest, blobs, CASES["gate"][0]), blobs)
    zeros = changed(first, blobs, [*CASES["values"][0], *CASES["output"][0]])
    made = without_zeros(zeros, blobs)
    assert made.architecture.ffn_sizes == (64, 0, 0)
    assert made.architecture.layers_without_attention == (1,)
    assert torch.allclose(logits(made, blobs), logits(zeros, blobs), atol=1e-5)


def test_removed_parts_are_not_searched_again(manifest: Manifest, blobs: LocalBlobs) -> None:
    made = without_zeros(changed(manifest, blobs, CASES["a whole layer"][0]), blobs)
    assert {component.layer for component in components(made)} == {1, 2}
    assert {unit.layer for unit in int8_units.units(made, "gpu")} == {1, 2}


def test_one_attention_is_kept(manifest: Manifest, blobs: LocalBlobs) -> None:
    zeros = changed(manifest, blobs, [(f"{n}.self_attn.v", rows(0, 64)) for n in range(3)])
    made = without_zeros(zeros, blobs)
    assert made.architecture.layers_without_attention == (1, 2)
    assert torch.allclose(logits(made, blobs), logits(zeros, blobs), atol=1e-5)


def test_a_mixture_is_not_changed(blobs: LocalBlobs) -> None:
    mix = networks.store(blobs, networks.NEXUS)
    zeros = changed(mix, blobs, CASES["values"][0][:1])
    assert without_zeros(zeros, blobs) is zeros
