"""Mixes are made from digests alone, without a database."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assembler.assembly import regression
from assembler.jobs import pipeline
from assembler.recipes.presets import PRESETS
from assembler.recipes.recipe import Finetune, Preset
from assembler.routing.router_init import MAX_CONDITION
from engine.compression.int8_curve import Compression
from registry.blobs.blobs import LocalBlobs
from registry.catalog import documents
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.numpy_tensors import Floats
from tests import tiny
from tests.assembler import moved_attention
from tests.assembler.mix_inputs import extended, inputs, with_moments
from tests.assembler.moved_attention import EMBEDDINGS, QUERY


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


def read(mix: Manifest, name: str, blobs: LocalBlobs) -> Floats:
    return numpy_tensors.read(blobs, mix.tensors[name])


def test_what_experts_changed_outside_ffns_is_averaged_by_regression(blobs: LocalBlobs) -> None:
    given = with_moments(blobs)
    mix = pipeline.assemble(given, blobs)
    plain = pipeline.assemble(replace(given, moments_digests=()), blobs)
    differing = {name for name in mix.tensors if mix.tensors[name] != plain.tensors[name]}
    assert differing == {QUERY, EMBEDDINGS}
    average = regression.of_inputs(QUERY, given.parts(blobs).members)
    assert average is not None
    seed = read(given.parts(blobs).seed, QUERY, blobs)
    experts = [read(each, QUERY, blobs) for each in given.parts(blobs).experts]
    changes = [(expert - seed).astype(np.float64) for expert in experts]
    expected = seed + average.rule.combine(changes)
    np.testing.assert_allclose(read(mix, QUERY, blobs), expected, rtol=1e-6)


def test_experts_of_changed_ffns_make_the_same_mix_by_either_average(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    moments = tuple(moved_attention.store_moments(blobs, number=n) for n in (1, 2))
    by_regression = pipeline.assemble(replace(given, moments_digests=moments), blobs)
    assert by_regression.digest == pipeline.assemble(given, blobs).digest


def test_an_expert_without_moments_leaves_the_mean(blobs: LocalBlobs) -> None:
    given = with_moments(blobs)
    unknown = replace(given, moments_digests=(given.moments_digests[0], None))
    plain = replace(given, moments_digests=())
    assert (given.has_moments, unknown.has_moments, plain.has_moments) == (True, False, False)
    assert pipeline.assemble(unknown, blobs).digest == pipeline.assemble(plain, blobs).digest


def test_an_extended_regression_is_that_of_all_experts(blobs: LocalBlobs) -> None:
    """It is rounded once more; what a finetune has learned stays."""
    two, three = with_moments(blobs), with_moments(blobs, numbers=(1, 2, 3))
    base = pipeline.assemble(two, blobs)
    learned = read(base, QUERY, blobs) + 1
    entry = numpy_tensors.write(blobs, learned, dtype="F32")
    more = replace(
        extended(replace(base, tensors=base.tensors | {QUERY: entry}), two, blobs),
        expert_digests=three.expert_digests,
        moments_digests=three.moments_digests,
        base_moments_digests=two.moments_digests,
    )
    at_once = replace(more, recipe=more.recipe.model_copy(update={"base": None}), base_digest=None)
    made, new = (pipeline.assemble(each, blobs) for each in (more, at_once))
    np.testing.assert_allclose(read(made, QUERY, blobs) - 1, read(new, QUERY, blobs), atol=1e-5)
    np.testing.assert_allclose(
        read(made, EMBEDDINGS, blobs), read(new, EMBEDDINGS, blobs), atol=1e-6
    )
    plain = pipeline.assemble(replace(more, moments_digests=(None, None, None)), blobs)
    assert plain.tensors[QUERY] != made.tensors[QUERY]
