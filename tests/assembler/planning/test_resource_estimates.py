"""Estimates from manifests agree with what the steps of a tiny mix write.

Covers: assembler.assembly.blueprint.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assembler.assembly.blueprint import Blueprint
from assembler.assembly.inputs import MixInputs
from assembler.compression import int8_checkpoint
from assembler.planning import resource_estimates
from assembler.recipes.recipe import Recipe
from assembler.routing.input_moments import NUM_DIRECTIONS
from engine.compression import int8_units
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.settings import settings
from tests import tiny
from tests.assembler import tiny_mixes
from tests.assembler.mix_inputs import with_moments
from tests.assembler.moved_attention import EMBEDDINGS, QUERY

NO_BLOB = "0" * 64


def blueprint(blobs: LocalBlobs, recipe: Recipe) -> Blueprint:
    numbers = [int(name.removeprefix("expert-")) for name in recipe.domains]
    inputs = MixInputs(
        recipe=recipe,
        seed_digest=tiny.store_manifest(blobs).digest,
        expert_digests=tuple(tiny.store_manifest(blobs, expert=n).digest for n in numbers),
        documents_digests=tuple(tiny.store_documents(blobs, expert=n) for n in numbers),
        vectors=tuple(tiny_mixes.vector(n).tolist() for n in numbers),
        states_digests=tuple(NO_BLOB for _ in numbers),
        projection_digest=manifests.store(blobs, tiny_mixes.projection(blobs)),
    )
    return Blueprint.of(inputs, blobs)


def asking(**changes: Any) -> Recipe:
    """Return a recipe with changes; changes of its finetune are `finetune={...}`."""
    recipe = tiny_mixes.recipe()
    finetune = recipe.finetune.model_copy(update=changes.pop("finetune", {}))
    return Recipe.model_validate(recipe.model_dump() | {"finetune": finetune} | changes)


def new_bytes(before: Manifest, after: Manifest) -> int:
    """Return the bytes of the tensors in `after` that are not in `before`."""
    known = {entry.digest for entry in before.tensors.values()}
    return sum(e.num_bytes for e in after.tensors.values() if e.digest not in known)


def test_a_finetune_stores_trained_tensors(blobs: LocalBlobs, tmp_path: Path) -> None:
    sizes = {"tokens": 64, "batch_size": 2, "sequence_length": 16, "train": "router"}
    recipe = asking(finetune=sizes)
    mix = tiny_mixes.store_mix(blobs)
    tuned = tiny_mixes.finetuned(
        mix, blobs, tmp_path, recipe=recipe.finetune, on_progress=lambda progress: None
    )
    estimate = resource_estimates.finetuning(blueprint(blobs, recipe))
    assert estimate.kept == new_bytes(mix, tuned)
    assert estimate.read == mix.num_bytes


def test_a_compression_stores_int8_layers(blobs: LocalBlobs) -> None:
    plan = blueprint(blobs, asking(compress={"min_fdt_75": 8, "target": "cpu"}))
    mix = tiny_mixes.store_mix(blobs)
    modules = int8_units.modules(int8_units.units(mix, "cpu"))
    compressed = int8_checkpoint.write(mix, modules, target="cpu", blobs=blobs)
    assert resource_estimates.compressing(plan).kept == new_bytes(mix, compressed)


def test_more_parts_are_more_work(blobs: LocalBlobs) -> None:
    router, whole = (
        resource_estimates.finetuning(blueprint(blobs, asking(finetune={"train": train})))
        for train in ("router", "all")
    )
    assert router.work < whole.work
    assert router.scratch < whole.scratch
    assert router.kept < whole.kept


def test_twice_the_tokens_are_twice_the_work(blobs: LocalBlobs) -> None:
    once, twice = (
        resource_estimates.finetuning(blueprint(blobs, asking(finetune={"tokens": tokens})))
        for tokens in (8192, 16384)
    )
    assert twice.work == pytest.approx(2 * once.work)
    assert (twice.kept, twice.scratch) == (once.kept, once.scratch)


def test_the_memory_of_all_processes_is_added(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = asking(finetune={"batch_size": 4})
    assert resource_estimates.finetuning(blueprint(blobs, recipe)).memory_per_process is None
    monkeypatch.setenv("NEXUSMIX_TRAINING_PROCESSES", "4")
    settings.cache_clear()
    spread = resource_estimates.finetuning(blueprint(blobs, recipe))
    assert spread.memory_per_process is not None
    assert spread.memory == 4 * spread.memory_per_process


def test_rows_from_documents_need_a_network(blobs: LocalBlobs) -> None:
    flexolmo = {"router": "linear", "router_init": "documents"}
    with_torch = resource_estimates.assembling(blueprint(blobs, asking(**flexolmo)))
    without = resource_estimates.assembling(blueprint(blobs, asking()))
    assert with_torch.memory > without.memory + 200_000_000


def test_a_gate_reads_every_version_of_the_mix(blobs: LocalBlobs) -> None:
    plain = blueprint(blobs, asking(finetune={"tokens": 0}))
    tuned = blueprint(blobs, asking())
    difference = resource_estimates.gating(tuned).read - resource_estimates.gating(plain).read
    assert difference == tuned.num_bytes == tiny_mixes.store_mix(blobs).num_bytes
    assert resource_estimates.gating(tuned).memory > resource_estimates.serving(tuned).memory


def test_a_regression_reads_the_seed_and_moments_too(blobs: LocalBlobs) -> None:
    given = with_moments(blobs)
    regressed = resource_estimates.assembling(Blueprint.of(given, blobs))
    mean = resource_estimates.assembling(Blueprint.of(replace(given, moments_digests=()), blobs))
    sources = [given.parts(blobs).seed.tensors[name] for name in (QUERY, EMBEDDINGS)]
    rows = 2 * (1 + NUM_DIRECTIONS) * 32 * 4
    assert regressed.read - mean.read == sum(entry.num_bytes for entry in sources) + 2 * rows
    assert regressed.kept == mean.kept
    assert regressed.memory > mean.memory
