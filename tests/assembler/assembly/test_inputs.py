"""Manifests and documents of a mix's inputs are read once, when they are first needed."""

from registry.blobs.blobs import LocalBlobs
from tests.assembler.jobs.test_pipeline import inputs


def test_parts_are_read_once(blobs: LocalBlobs) -> None:
    parts = inputs(blobs).parts(blobs)
    assert parts.seed is parts.seed
    assert parts.experts is parts.experts
    assert parts.states.shape[0] == len(parts.experts)
    assert parts.base is None


def test_the_architecture_of_a_manifest_is_validated_once(blobs: LocalBlobs) -> None:
    seed = inputs(blobs).parts(blobs).seed
    assert seed.architecture is seed.architecture
