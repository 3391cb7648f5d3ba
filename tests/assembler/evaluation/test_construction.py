"""A mix that is not what its recipe makes of its parents is refused before any text is read.

Covers: trained_tensors.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assembler.assembly.inputs import MixInputs
from assembler.evaluation import construction
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.jobs import pipeline
from assembler.recipes.presets import PRESETS
from assembler.recipes.recipe import Finetune, Preset
from engine.gates.report import Construction
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint
from tests.assembler.mix_inputs import extended, inputs

ROWS = "model.layers.1.mlp.gate.weight"
EXPERT = "model.layers.0.mlp.experts.0.up_proj.weight"
OTHER = "model.layers.0.mlp.experts.1.up_proj.weight"
SHARED = "model.layers.0.mlp.shared_expert.up_proj.weight"
ATTENTION = "model.layers.0.self_attn.o_proj.weight"

Damage = Callable[[Manifest, LocalBlobs], Manifest]


def check(
    given: MixInputs, mix: Manifest, blobs: LocalBlobs, *, finetuned: Manifest | None = None
) -> Construction:
    parts = given.parts(blobs)
    checkpoints = GateCheckpoints(
        seed=parts.seed,
        experts=dict(zip(given.recipe.domains, parts.experts, strict=True)),
        assembled=mix,
        finetuned=finetuned,
        base=None if parts.base is None else parts.base.mix,
    )
    return construction.check(parts, checkpoints, assemble=lambda: pipeline.assemble(given, blobs))


def refused(given: MixInputs, mix: Manifest, blobs: LocalBlobs, **further: Manifest) -> list[str]:
    with pytest.raises(InvalidCheckpoint, match="is not what its recipe makes") as error:
        check(given, mix, blobs, **further)
    return [problem.pointer for problem in error.value.problems]


def with_tensor(
    mix: Manifest, blobs: LocalBlobs, name: str, change: Callable[[np.ndarray], object]
) -> Manifest:
    values = np.array(numpy_tensors.read(blobs, mix.tensors[name]))
    change(values)
    entry = numpy_tensors.write(blobs, values, dtype=mix.tensors[name].dtype)
    return replace(mix, tensors=mix.tensors | {name: entry})


def doubled(values: np.ndarray) -> None:
    values *= 2


def swapped_rows(values: np.ndarray) -> None:
    values[[0, 1]] = values[[1, 0]]


def of_tensor(name: str, change: Callable[[np.ndarray], object] = doubled) -> Damage:
    return lambda mix, blobs: with_tensor(mix, blobs, name, change)


def of_config(**fields: object) -> Damage:
    return lambda mix, _: replace(mix, config=mix.config | fields)


def swapped_experts(mix: Manifest, _: LocalBlobs) -> Manifest:
    entries = mix.tensors
    return replace(mix, tensors=entries | {EXPERT: entries[OTHER], OTHER: entries[EXPERT]})


def stale_expert(mix: Manifest, _: LocalBlobs) -> Manifest:
    return replace(mix, tensors=mix.tensors | {EXPERT: mix.tensors[SHARED]})


def other_file(mix: Manifest, blobs: LocalBlobs) -> Manifest:
    return replace(mix, files=mix.files | {"tokenizer.json": put_bytes(blobs, b"{}")})


def missing_tensor(mix: Manifest, _: LocalBlobs) -> Manifest:
    return replace(mix, tensors={n: e for n, e in mix.tensors.items() if n != EXPERT})


@pytest.mark.parametrize("preset", PRESETS)
def test_an_undamaged_mix_is_what_its_recipe_makes(blobs: LocalBlobs, preset: Preset) -> None:
    given = inputs(blobs, preset=preset)
    mix = pipeline.assemble(given, blobs)
    made = check(given, mix, blobs)
    assert (made.blobs, made.tensors) == (len(mix.digests()), len(mix.tensors))
    assert made.blocks == (0 if preset == "merge" else 2)


def test_an_extension_is_held_against_its_base(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    more = extended(pipeline.assemble(given, blobs), given, blobs)
    mix = pipeline.assemble(more, blobs)
    assert check(more, mix, blobs).blocks == 2
    assert refused(more, swapped_experts(mix, blobs), blobs)


@pytest.mark.parametrize(
    ("damage", "pointer"),
    [
        (of_tensor(ATTENTION), f"/tensors/{ATTENTION}"),
        (of_tensor(ROWS, swapped_rows), f"/tensors/{ROWS}"),
        (of_tensor(SHARED), f"/tensors/{SHARED}"),
        (of_config(rope_theta=1.0), "/config/rope_theta"),
        (of_config(combine="sum"), "/config/combine"),
        (of_config(disabled_experts=[0]), "/config/disabled_experts"),
        (swapped_experts, f"/tensors/{EXPERT}"),
        (stale_expert, f"/tensors/{EXPERT}"),
        (other_file, "/files/tokenizer.json"),
        (missing_tensor, f"/tensors/{EXPERT}"),
    ],
)
def test_damage_is_found_in_its_place(blobs: LocalBlobs, damage: Damage, pointer: str) -> None:
    given = inputs(blobs)
    mix = pipeline.assemble(given, blobs)
    assert pointer in refused(given, damage(mix, blobs), blobs)


def test_bytes_that_changed_under_their_digest_are_found(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    mix = pipeline.assemble(given, blobs)
    path = blobs.local_path(mix.tensors[EXPERT].digest)
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert refused(given, mix, blobs) == [f"/tensors/{EXPERT}"]


def test_a_finetune_changes_only_what_it_trains(blobs: LocalBlobs, tmp_path: Path) -> None:
    given = inputs(blobs)
    short = Finetune(tokens=4 * 2 * 32, batch_size=2, sequence_length=32, train="attention")
    given = replace(given, recipe=given.recipe.model_copy(update={"finetune": short}))
    mix = pipeline.assemble(given, blobs)
    trained = pipeline.finetune(
        mix, given, blobs=blobs, checkpoint_path=tmp_path, on_progress=lambda _: None
    )
    assert trained.tensors[ATTENTION] != mix.tensors[ATTENTION]
    check(given, mix, blobs, finetuned=trained)
    twice = with_tensor(trained, blobs, ATTENTION, doubled)
    assert refused(given, mix, blobs, finetuned=twice) == [f"/tensors/{ATTENTION}"]
    worse = with_tensor(trained, blobs, EXPERT, doubled)
    assert refused(given, mix, blobs, finetuned=worse) == [f"/tensors/{EXPERT}"]
    stale = replace(trained, tensors=trained.tensors | {ROWS: mix.tensors[ROWS]})
    assert set(refused(given, mix, blobs, finetuned=stale)) == {f"/tensors/{ROWS}"}
