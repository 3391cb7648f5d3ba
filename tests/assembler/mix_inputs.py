"""The inputs of tiny mixes, from digests alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from assembler.assembly.inputs import MixInputs
from assembler.recipes import presets
from assembler.recipes.recipe import Preset, Recipe
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests, numpy_tensors
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import moved_attention, tiny_mixes

NUM_EXPERTS = 2


def inputs(blobs: LocalBlobs, *, preset: Preset = "nexus") -> MixInputs:
    numbers = range(1, NUM_EXPERTS + 1)
    recipe = Recipe(
        **presets.assembly(preset).model_dump(),
        family="tiny",
        experts=tuple(f"expert-{number}@1" for number in numbers),
        finetune=presets.finetune(preset, num_experts=0),
    )
    return MixInputs(
        recipe=recipe,
        seed_digest=tiny.store_manifest(blobs).digest,
        expert_digests=tuple(tiny.store_manifest(blobs, expert=n).digest for n in numbers),
        documents_digests=tuple(tiny.store_documents(blobs, expert=n) for n in numbers),
        vectors=tuple(tiny_mixes.vector(number).tolist() for number in numbers),
        states_digests=tuple(store_states(blobs, number) for number in numbers),
        projection_digest=manifests.store(blobs, tiny_mixes.projection(blobs)),
    )


def store_states(blobs: LocalBlobs, number: int) -> str:
    return numpy_tensors.write(blobs, tiny_mixes.states(number), dtype="F32").digest


def extended(base: Manifest, of: MixInputs, blobs: LocalBlobs) -> MixInputs:
    """Return the inputs of `of` with expert 3 added, which extend the mix `base`."""
    return replace(
        of,
        recipe=of.recipe.model_copy(
            update={"experts": (*of.recipe.experts, "expert-3@1"), "base": "mine@1"}
        ),
        expert_digests=(*of.expert_digests, tiny.store_manifest(blobs, expert=3).digest),
        documents_digests=(*of.documents_digests, tiny.store_documents(blobs, expert=3)),
        vectors=(*of.vectors, tiny_mixes.vector(3).tolist()),
        states_digests=(*of.states_digests, store_states(blobs, 3)),
        base_digest=manifests.store(blobs, base),
        base_experts=tuple(zip(of.recipe.experts, of.expert_digests, strict=True)),
    )


def with_moments(blobs: LocalBlobs, numbers: Sequence[int] = (1, 2), **changes: Any) -> MixInputs:
    """Return the inputs of a mix of experts that changed attention, with their moments."""
    given = inputs(blobs)
    return replace(
        given,
        seed_digest=manifests.store(blobs, moved_attention.store_seed(blobs)),
        expert_digests=tuple(
            manifests.store(blobs, moved_attention.store_expert(blobs, number=n)) for n in numbers
        ),
        moments_digests=tuple(moved_attention.store_moments(blobs, number=n) for n in numbers),
        **changes,
    )
