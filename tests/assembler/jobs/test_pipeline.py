"""Mixes are made from digests alone, without a database."""

from dataclasses import replace
from pathlib import Path

import pytest

from assembler.assembly.inputs import MixInputs
from assembler.jobs import pipeline
from assembler.recipes import presets
from assembler.recipes.presets import PRESETS
from assembler.recipes.recipe import Finetune, Preset, Recipe
from assembler.routing.router_init import MAX_CONDITION
from engine.compression.int8_curve import Compression
from registry.blobs.blobs import LocalBlobs
from registry.catalog import documents
from registry.checkpoints import manifests, numpy_tensors
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import tiny_mixes

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


@pytest.mark.parametrize("preset", PRESETS)
def test_equal_inputs_give_equal_mixes(blobs: LocalBlobs, preset: Preset) -> None:
    given = inputs(blobs, preset=preset)
    assert pipeline.assemble(given, blobs).digest == pipeline.assemble(given, blobs).digest


def test_a_merge_is_a_dense_network(blobs: LocalBlobs) -> None:
    merged = pipeline.assemble(inputs(blobs, preset="merge"), blobs)
    assert merged.architecture.num_experts == 0
    assert merged.architecture == tiny.ARCHITECTURE


def test_an_extension_knows_which_experts_are_new(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    more = extended(pipeline.assemble(given, blobs), given, blobs)
    assert given.new_experts == frozenset()
    assert more.new_experts == {2}
    made = pipeline.assemble(more, blobs)
    assert made.architecture.expert_names == ("expert-1", "expert-2", "expert-3")


def test_a_compressed_mix_is_judged_by_documents_that_its_compression_has_not_read(
    blobs: LocalBlobs,
) -> None:
    given = inputs(blobs)
    assert pipeline.gate_documents(given, blobs) == given.parts(blobs).documents
    compress = Compression(min_fdt_75=8)
    compressed = replace(given, recipe=given.recipe.model_copy(update={"compress": compress}))
    for own, judging in zip(
        given.parts(blobs).documents, pipeline.gate_documents(compressed, blobs), strict=True
    ):
        choosing, _ = documents.split_held_out(own)
        held_out = [document for document in own if document.split == "held-out"]
        assert judging
        assert not {document.id for document in choosing} & {document.id for document in judging}
        assert len(choosing) + len(judging) == len(held_out)


def test_the_router_whose_rows_are_most_alike_is_named(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    twins = replace(given, states_digests=(given.states_digests[0],) * 2)
    name, condition = pipeline.worst_condition(pipeline.assemble(given, blobs), blobs)
    assert name.endswith(".mlp.gate.weight")
    assert condition < pipeline.worst_condition(pipeline.assemble(twins, blobs), blobs)[1]
    assert pipeline.worst_condition(pipeline.assemble(twins, blobs), blobs)[1] > MAX_CONDITION


def test_an_assembly_reads_no_documents(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    forgetful = replace(given, documents_digests=(None, None))
    assert pipeline.assemble(forgetful, blobs).digest == pipeline.assemble(given, blobs).digest


def test_a_finetune_reads_the_domains_that_have_documents(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    given = inputs(blobs)
    short = Finetune(tokens=4 * 2 * 32, batch_size=2, sequence_length=32)
    given = replace(
        given,
        recipe=given.recipe.model_copy(update={"finetune": short}),
        documents_digests=(None, given.documents_digests[1]),
    )
    mix = pipeline.assemble(given, blobs)
    steps: list[int] = []
    trained = pipeline.finetune(
        mix,
        given,
        blobs=blobs,
        checkpoint_path=tmp_path / "checkpoints",
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == [1, 2, 3, 4]
    assert trained.architecture == mix.architecture
