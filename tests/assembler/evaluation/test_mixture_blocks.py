"""An error of the assembler itself shows in what a mix computes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from assembler.assembly.inputs import MixInputs
from assembler.evaluation import mixture_blocks
from assembler.evaluation.mixture_blocks import MAX_DISTANCE
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.jobs import pipeline
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests.assembler.mix_inputs import inputs, with_moments


def checkpoints(given: MixInputs, mix: Manifest, blobs: LocalBlobs) -> GateCheckpoints:
    parts = given.parts(blobs)
    experts = dict(zip(given.recipe.domains, parts.experts, strict=True))
    return GateCheckpoints(seed=parts.seed, experts=experts, assembled=mix, finetuned=None)


def swapped(mix: Manifest, layer: int, parts: Sequence[str]) -> Manifest:
    """Return the mix with tensors of experts 0 and 1 swapped in one block."""
    entries = dict(mix.tensors)
    for part in parts:
        names = [f"model.layers.{layer}.mlp.experts.{n}.{part}.weight" for n in (0, 1)]
        entries |= {names[0]: mix.tensors[names[1]], names[1]: mix.tensors[names[0]]}
    return replace(mix, tensors=entries)


def test_a_block_of_other_experts_is_found(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    mix = pipeline.assemble(given, blobs)
    assert not list(mixture_blocks.check(given.parts(blobs), mix))
    damaged = swapped(mix, 1, ["gate_proj", "up_proj", "down_proj"])
    [problem] = mixture_blocks.check(given.parts(blobs), damaged)
    assert problem.pointer == "/blocks/1"


@pytest.mark.parametrize("fields", [{"combine": "sum"}, {"num_experts_per_tok": 2}])
def test_a_config_other_than_the_recipe_is_found(
    blobs: LocalBlobs, fields: dict[str, object]
) -> None:
    given = inputs(blobs)
    mix = pipeline.assemble(given, blobs)
    other = replace(mix, config=mix.config | fields)
    assert len(list(mixture_blocks.check(given.parts(blobs), other))) == 2


def test_a_mix_with_one_expert_chosen_is_that_expert(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    mix = pipeline.assemble(given, blobs)
    found = mixture_blocks.nearness(checkpoints(given, mix, blobs), blobs)
    assert set(found) == set(given.recipe.domains)
    for near in found.values():
        assert near.is_expert
        assert max(near.distance, *near.blocks) <= MAX_DISTANCE
    damaged = swapped(mix, 0, ["down_proj"])
    further = mixture_blocks.nearness(checkpoints(given, damaged, blobs), blobs)
    assert all(near.is_expert for near in further.values())
    assert min(near.distance for near in further.values()) > MAX_DISTANCE
    assert min(near.blocks[0] for near in further.values()) > 0.1
    assert max(near.blocks[1] for near in further.values()) <= MAX_DISTANCE


def test_a_mix_of_averages_is_as_near_as_they_allow(blobs: LocalBlobs) -> None:
    """Experts that moved queries and a norm of the second block, and embeddings."""
    given = with_moments(blobs)
    mix = pipeline.assemble(given, blobs)
    found = mixture_blocks.nearness(checkpoints(given, mix, blobs), blobs)
    for near in found.values():
        assert not near.is_expert
        assert near.distance <= MAX_DISTANCE
        assert near.blocks[0] <= MAX_DISTANCE < near.blocks[1] < 0.5
