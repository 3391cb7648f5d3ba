"""Experts are added to, removed from or replaced in a finished mix."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from assembler.assembly.extend import Base
from assembler.assembly.regression import Member
from assembler.recipes.recipe import Preset
from assembler.routing import router_rows
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import DOMAIN_EMBEDDINGS
from tests import tiny
from tests.assembler import tiny_mixes

ROWS = "model.layers.1.mlp.gate.weight"
NORM = "model.layers.1.input_layernorm.weight"
KEPT_PRESETS: tuple[Preset, ...] = ("nexus", "nexus-paper", "flexolmo", "linear", "btx", "bam")


def extended(
    blobs: LocalBlobs,
    base: Base,
    *,
    experts: Sequence[int],
    preset: Preset = "nexus",
    **changes: str,
) -> Manifest:
    return tiny_mixes.assemble(
        tiny_mixes.recipe(preset=preset, experts=experts, **changes), blobs, base=base
    )


@pytest.mark.parametrize("preset", KEPT_PRESETS)
def test_an_extended_mix_equals_a_new_mix_of_all_experts(blobs: LocalBlobs, preset: Preset) -> None:
    base = tiny_mixes.as_base(
        tiny_mixes.store_mix(blobs, preset=preset, experts=(1, 2)), blobs, experts=(1, 2)
    )
    at_once = tiny_mixes.store_mix(blobs, preset=preset, experts=(1, 2, 3))
    assert extended(blobs, base, experts=(1, 2, 3), preset=preset).digest == at_once.digest


@pytest.mark.parametrize("preset", KEPT_PRESETS)
def test_a_reduced_mix_equals_a_new_mix_of_the_rest(blobs: LocalBlobs, preset: Preset) -> None:
    base = tiny_mixes.as_base(tiny_mixes.store_mix(blobs, preset=preset), blobs)
    rest = tiny_mixes.store_mix(blobs, preset=preset, experts=(1, 3))
    assert extended(blobs, base, experts=(1, 3), preset=preset).digest == rest.digest


def test_an_expert_is_replaced(blobs: LocalBlobs) -> None:
    base = tiny_mixes.as_base(tiny_mixes.store_mix(blobs), blobs)
    made = extended(blobs, base, experts=(1, 4, 3))
    assert made.digest == tiny_mixes.store_mix(blobs, experts=(1, 4, 3)).digest


def test_learned_tensors_are_kept(blobs: LocalBlobs) -> None:
    """Rows, embeddings and FFNs of known experts come from the base."""
    mix = tiny_mixes.store_mix(blobs)
    changed = {
        name: tensors.write(blobs, tensors.read(blobs, entry) + 1)
        for name, entry in mix.tensors.items()
        if name == ROWS or ".experts.2." in name or "shared_expert" in name
    }
    base = tiny_mixes.as_base(replace(mix, tensors=mix.tensors | changed), blobs)
    made = extended(blobs, base, experts=(3, 4))
    old, new = (numpy_tensors.read(blobs, m.tensors[ROWS]) for m in (base.mix, made))
    assert np.array_equal(new[0], old[2])
    for name in changed:
        moved = name.replace(".experts.2.", ".experts.0.")
        if name != ROWS:
            assert made.tensors[moved] == changed[name]


def test_a_new_row_comes_from_the_projection_that_the_base_learned(blobs: LocalBlobs) -> None:
    """Rows that are twice as long leave the row that the doubled projection gives as it is."""
    mix = tiny_mixes.store_mix(blobs)
    name = "model.layers.1.mlp.gate.projection.1.weight"
    doubled = {
        n: tensors.write(blobs, 2 * tensors.read(blobs, mix.tensors[n])) for n in (name, ROWS)
    }
    base = tiny_mixes.as_base(replace(mix, tensors=mix.tensors | doubled), blobs)
    fresh = numpy_tensors.read(
        blobs, tiny_mixes.store_mix(blobs, experts=(1, 2, 3, 4)).tensors[ROWS]
    )
    made = extended(blobs, base, experts=(1, 2, 3, 4))
    rows = numpy_tensors.read(blobs, made.tensors[ROWS])
    np.testing.assert_allclose(rows, 2 * fresh, rtol=0.01, atol=1e-3)
    assert made.tensors[name] == doubled[name]


def test_a_new_row_is_as_sure_as_those_that_the_base_has_trained(blobs: LocalBlobs) -> None:
    """A finetune makes rows longer, and the projection learns that for their embeddings alone."""
    mix = tiny_mixes.store_mix(blobs)
    name = "model.layers.1.mlp.gate.projection.1.weight"
    changed = {
        name: tensors.write(blobs, 1.01 * tensors.read(blobs, mix.tensors[name])),
        ROWS: tensors.write(blobs, 3 * tensors.read(blobs, mix.tensors[ROWS])),
    }
    base = tiny_mixes.as_base(replace(mix, tensors=mix.tensors | changed), blobs)
    fresh = tiny_mixes.store_mix(blobs, experts=(1, 2, 3, 4))
    made = extended(blobs, base, experts=(1, 2, 3, 4))
    row, new = (numpy_tensors.read(blobs, m.tensors[ROWS])[3] for m in (fresh, made))
    assert np.linalg.norm(new) == pytest.approx(3 * np.linalg.norm(row), rel=0.25)
    embeddings = numpy_tensors.read(blobs, made.tensors[DOMAIN_EMBEDDINGS])[1]
    weights = [made.tensors[name.replace("1.weight", f"{n}.weight")] for n in (0, 1)]
    folded = router_rows.project(embeddings, *weights, blobs=blobs)
    np.testing.assert_allclose(new, folded[3], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(("extension", "stays"), [("append", True), ("reset", False)])
def test_a_linear_router_is_appended_to_or_reset(
    blobs: LocalBlobs, extension: str, stays: bool
) -> None:
    mix = tiny_mixes.store_mix(blobs, preset="linear")
    learned = tensors.write(blobs, torch.ones(3, 32, dtype=torch.bfloat16))
    base = tiny_mixes.as_base(replace(mix, tensors=mix.tensors | {ROWS: learned}), blobs)
    made = extended(blobs, base, experts=(1, 2, 3, 4), preset="linear", router_extension=extension)
    rows = numpy_tensors.read(blobs, made.tensors[ROWS])
    assert bool((rows[:3] == 1).all()) is stays
    assert not (rows[3] == 1).any()


@pytest.mark.parametrize("learned", [0.0, 2.0])
def test_other_tensors_follow_the_mean_of_the_experts(blobs: LocalBlobs, learned: float) -> None:
    """The change by a finetune is kept in full."""

    def with_norm(checkpoint: Manifest, value: float) -> Manifest:
        norm = tensors.write(blobs, torch.full((32,), value, dtype=torch.bfloat16))
        return replace(checkpoint, tensors=checkpoint.tensors | {NORM: norm})

    experts = {
        f"expert-{number}@1": Member(
            checkpoint=with_norm(tiny.store_manifest(blobs, expert=number), value)
        )
        for number, value in {1: 3.0, 2: 5.0, 3: 7.0}.items()
    }
    base = Base(mix=with_norm(tiny_mixes.store_mix(blobs), 5.0 + learned), experts=experts)
    made = extended(blobs, base, experts=(1, 2))
    assert (numpy_tensors.read(blobs, made.tensors[NORM]) == 4.0 + learned).all()


def test_tensors_that_no_expert_changed_are_kept(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs)
    learned = tensors.write(blobs, torch.full((32,), 3.0, dtype=torch.bfloat16))
    base = tiny_mixes.as_base(replace(mix, tensors=mix.tensors | {NORM: learned}), blobs)
    assert extended(blobs, base, experts=(1, 2, 3, 4)).tensors[NORM] == learned
