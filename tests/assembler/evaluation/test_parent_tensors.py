"""Tensors are their parents' or averages of them, also where the assembler itself is wrong."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from assembler.assembly import regression, upcycle
from assembler.assembly.averaging import mean
from assembler.assembly.inputs import MixInputs
from assembler.evaluation import parent_tensors
from assembler.jobs import pipeline
from assembler.recipes.presets import PRESETS
from assembler.recipes.recipe import Preset
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import as_routed_expert
from tests.assembler import moved_attention
from tests.assembler.mix_inputs import extended, inputs, with_moments


def found(given: MixInputs, mix: Manifest, blobs: LocalBlobs) -> set[str]:
    problems = parent_tensors.check(given.parts(blobs), mix)
    return {problem.pointer.removeprefix("/tensors/") for problem in problems}


def plain(given: MixInputs) -> MixInputs:
    """Return the inputs of the same mix by plain means."""
    recipe = given.recipe.model_copy(update={"averaging": "mean"})
    return replace(given, recipe=recipe, moments_digests=())


@pytest.mark.parametrize("preset", PRESETS)
def test_an_undamaged_mix_of_each_preset(blobs: LocalBlobs, preset: Preset) -> None:
    given = inputs(blobs, preset=preset)
    assert not found(given, pipeline.assemble(given, blobs), blobs)


def test_undamaged_averages(blobs: LocalBlobs) -> None:
    given = with_moments(blobs)
    for averaged in (given, plain(given)):
        assert not found(averaged, pipeline.assemble(averaged, blobs), blobs)


def test_an_undamaged_extension(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    more = extended(pipeline.assemble(given, blobs), given, blobs)
    mix = pipeline.assemble(more, blobs)
    assert not found(more, mix, blobs)
    name = "model.layers.0.mlp.experts.2.up_proj.weight"
    other = mix.tensors[name.replace("experts.2", "experts.1")]
    assert found(more, replace(mix, tensors=mix.tensors | {name: other}), blobs) == {name}


def test_a_mean_with_other_weights(blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def weighed(entries: Sequence[TensorEntry], **fields: Any) -> TensorEntry:
        return mean(entries, **(fields | {"weights": [1.0, 2.0]}))

    monkeypatch.setattr(upcycle, "mean", weighed)
    given = plain(with_moments(blobs))
    assert found(given, pipeline.assemble(given, blobs), blobs) == {
        moved_attention.QUERY,
        moved_attention.EMBEDDINGS,
        moved_attention.NORM,
    }


def test_a_mean_in_place_of_a_regression(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "of_inputs", lambda *_: None)
    given = with_moments(blobs)
    wrong = found(given, pipeline.assemble(given, blobs), blobs)
    assert wrong == {moved_attention.QUERY, moved_attention.EMBEDDINGS}


def test_experts_in_another_order(blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcycle, "as_routed_expert", lambda name, n: as_routed_expert(name, 1 - n))
    given = inputs(blobs)
    wrong = found(given, pipeline.assemble(given, blobs), blobs)
    assert len(wrong) == 2 * 2 * 3
