"""A mix is made again from its lock alone."""

from pathlib import Path

import pytest

from assembler.assembly.provenance import Environment, Lock
from assembler.jobs import pipeline, reproduction
from assembler.jobs.reproduction import Stage
from assembler.recipes import presets
from engine.compression.int8_curve import Compression
from registry import manifests
from registry.blobs import LocalBlobs, put_bytes
from registry.errors import InvalidInput, NotFound
from tests.assembler.jobs.test_pipeline import materials


def store_lock(blobs: LocalBlobs, folder: Path, *, compress: Compression | None = None) -> Lock:
    """Of a mix with a short finetune, whose result is in the store."""
    given = materials(blobs)
    changes = {"tokens": 512, "sequence_length": 32}
    finetune = presets.finetune("nexus", num_experts=2).model_copy(update=changes)
    recipe = given.recipe.model_copy(update={"finetune": finetune, "compress": compress})
    given = type(given)(**{**given.__dict__, "recipe": recipe})
    assembled = pipeline.assemble(given, blobs)
    finetuned = pipeline.finetune(
        assembled, given, blobs=blobs, checkpoint_path=folder, on_progress=lambda progress: None
    )
    compressed = None
    if compress is not None:
        made, _ = pipeline.compress(finetuned, given, blobs=blobs, on_progress=lambda text: None)
        compressed = manifests.store(blobs, made)
    return Lock.of(
        given,
        environment=Environment.here(),
        assembled=manifests.store(blobs, assembled),
        finetuned=manifests.store(blobs, finetuned),
        compressed=compressed,
        blobs=blobs,
    )


def again(lock: Lock, blobs: LocalBlobs, *, assembly_only: bool = False) -> list[Stage]:
    return reproduction.reproduce(
        lock, blobs=blobs, assembly_only=assembly_only, on_progress=lambda text: None
    )


def test_the_same_comes_out(blobs: LocalBlobs, tmp_path: Path) -> None:
    stages = again(store_lock(blobs, tmp_path), blobs)
    assert [stage.name for stage in stages] == ["assemble", "finetune"]
    assert all(stage.is_same for stage in stages)
    assert not any(stage.differing for stage in stages)


def test_a_compression_is_searched_again(blobs: LocalBlobs, tmp_path: Path) -> None:
    wanted = Compression(min_fdt_75=0, rounds=2, prompts=4, prefix_tokens=8, completion_tokens=4)
    lock = store_lock(blobs, tmp_path, compress=wanted)
    stages = again(lock, blobs)
    assert [stage.name for stage in stages] == ["assemble", "finetune", "compress"]
    assert all(stage.is_same for stage in stages)
    assert stages[-1].made == lock.made != lock.finetuned


def test_what_differs_is_named(blobs: LocalBlobs, tmp_path: Path) -> None:
    lock = store_lock(blobs, tmp_path)
    other = lock.recipe.model_copy(update={"combine": "sum", "seed": 1})
    (stage,) = again(lock.model_copy(update={"recipe": other}), blobs, assembly_only=True)
    assert not stage.is_same
    assert stage.differing == ("config",)


def test_nothing_is_left_behind(blobs: LocalBlobs, tmp_path: Path) -> None:
    lock = store_lock(blobs, tmp_path / "checkpoints")
    before = {path.name for path in (tmp_path).rglob("*") if path.is_file()}
    again(lock, blobs)
    assert {path.name for path in (tmp_path).rglob("*") if path.is_file()} == before


def test_missing_blobs_are_named_before_anything_is_made(blobs: LocalBlobs, tmp_path: Path) -> None:
    lock = store_lock(blobs, tmp_path)
    tensor = next(iter(manifests.load(blobs, lock.experts[0]).tensors.values()))
    blobs.local_path(tensor.digest).unlink()
    with pytest.raises(NotFound) as caught:
        again(lock, blobs)
    assert [problem.detail for problem in caught.value.problems] == [tensor.digest]


def test_what_is_no_lock_is_refused(blobs: LocalBlobs) -> None:
    put_bytes(blobs, b"{}")
    with pytest.raises(InvalidInput, match="not a lock"):
        reproduction.read(b'{"schema_version": 2}')
