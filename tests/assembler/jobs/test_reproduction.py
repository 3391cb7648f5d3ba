"""A mix is made again from its provenance alone."""

from pathlib import Path

import pytest

from assembler.assembly.provenance import Environment, Provenance
from assembler.jobs import pipeline, reproduction
from assembler.jobs.reproduction import Stage
from assembler.recipes import presets
from engine.compression.int8_curve import Compression
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints import manifests
from registry.errors import InvalidInput, NotFound
from tests.assembler.mix_inputs import inputs, with_moments


def store_provenance(
    blobs: LocalBlobs, folder: Path, *, compress: Compression | None = None
) -> Provenance:
    """Store the provenance and the result of a mix with a short finetune."""
    given = inputs(blobs)
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
    return Provenance.of(
        given,
        environment=Environment.here(),
        assembled=manifests.store(blobs, assembled),
        finetuned=manifests.store(blobs, finetuned),
        compressed=compressed,
        blobs=blobs,
    )


def again(provenance: Provenance, blobs: LocalBlobs, *, assembly_only: bool = False) -> list[Stage]:
    return reproduction.reproduce(
        provenance, blobs=blobs, assembly_only=assembly_only, on_progress=lambda text: None
    )


def test_an_equal_mix_is_made(blobs: LocalBlobs, tmp_path: Path) -> None:
    stages = again(store_provenance(blobs, tmp_path), blobs)
    assert [stage.name for stage in stages] == ["assemble", "finetune"]
    assert all(stage.is_same for stage in stages)
    assert not any(stage.differing for stage in stages)


def test_an_equal_compression_is_made(blobs: LocalBlobs, tmp_path: Path) -> None:
    request = Compression(min_fdt_75=0, rounds=2, prompts=4, prefix_tokens=8, completion_tokens=4)
    provenance = store_provenance(blobs, tmp_path, compress=request)
    stages = again(provenance, blobs)
    assert [stage.name for stage in stages] == ["assemble", "finetune", "compress"]
    assert all(stage.is_same for stage in stages)
    assert stages[-1].made == provenance.made != provenance.finetuned


def test_differences_are_named(blobs: LocalBlobs, tmp_path: Path) -> None:
    provenance = store_provenance(blobs, tmp_path)
    other = provenance.recipe.model_copy(update={"combine": "sum", "seed": 1})
    (stage,) = again(provenance.model_copy(update={"recipe": other}), blobs, assembly_only=True)
    assert not stage.is_same
    assert stage.differing == ("config",)


def test_a_reproduction_leaves_nothing_in_the_store(blobs: LocalBlobs, tmp_path: Path) -> None:
    provenance = store_provenance(blobs, tmp_path / "checkpoints")
    before = {path.name for path in (tmp_path).rglob("*") if path.is_file()}
    again(provenance, blobs)
    assert {path.name for path in (tmp_path).rglob("*") if path.is_file()} == before


def test_missing_blobs_are_named_before_anything_is_made(blobs: LocalBlobs, tmp_path: Path) -> None:
    provenance = store_provenance(blobs, tmp_path)
    tensor = next(iter(manifests.load(blobs, provenance.experts[0]).tensors.values()))
    blobs.local_path(tensor.digest).unlink()
    with pytest.raises(NotFound) as caught:
        again(provenance, blobs)
    assert [problem.detail for problem in caught.value.problems] == [tensor.digest]


def test_other_json_is_refused(blobs: LocalBlobs) -> None:
    put_bytes(blobs, b"{}")
    with pytest.raises(InvalidInput, match="not the provenance"):
        reproduction.read(b'{"schema_version": 2}')


def test_a_mix_by_regression_is_made_again_and_needs_its_moments(blobs: LocalBlobs) -> None:
    given = with_moments(blobs)
    provenance = Provenance.of(
        given,
        environment=Environment.here(),
        assembled=manifests.store(blobs, pipeline.assemble(given, blobs)),
        finetuned=None,
        compressed=None,
        blobs=blobs,
    )
    assert all(stage.is_same for stage in again(provenance, blobs, assembly_only=True))
    lost = provenance.moments[1]
    assert lost is not None
    blobs.local_path(lost).unlink()
    with pytest.raises(NotFound) as caught:
        again(provenance, blobs, assembly_only=True)
    assert [problem.detail for problem in caught.value.problems] == [lost]
