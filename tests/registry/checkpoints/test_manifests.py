"""Manifests: equal checkpoints have equal names, and what is read is what was written."""

from dataclasses import replace

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint
from tests import tiny


def test_round_trip_through_the_store(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    digest = manifests.store(blobs, manifest)
    assert digest == manifest.digest
    assert manifests.load(blobs, digest) == manifest


def test_order_does_not_matter(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    backwards = Manifest(
        config=dict(reversed(manifest.config.items())),
        tensors=dict(reversed(manifest.tensors.items())),
        files=dict(reversed(manifest.files.items())),
    )
    assert backwards.digest == manifest.digest


def test_experts_share_what_they_did_not_change(blobs: LocalBlobs) -> None:
    seed, expert = tiny.store_manifest(blobs), tiny.store_manifest(blobs, expert=1)
    own = {name for name, entry in expert.tensors.items() if entry != seed.tensors[name]}
    assert own == {name for name in expert.tensors if ".mlp." in name}


@pytest.mark.parametrize("data", [b"", b"[]", b'{"config": {}}', b'{"tensors": {"a": 1}}'])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(InvalidCheckpoint, match="not a manifest"):
        Manifest.from_json(data)


def test_a_sparse_entry_survives(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    name, entry = next(iter(manifest.tensors.items()))
    sparse = replace(manifest, tensors=manifest.tensors | {name: replace(entry, num_nonzero=5)})
    assert Manifest.from_json(sparse.to_json()) == sparse
    assert sparse.num_bytes == manifest.num_bytes
    saved = entry.num_bytes - (entry.num_numbers // 8 + 2 * 5)
    assert sparse.num_stored_bytes == manifest.num_stored_bytes - saved


@pytest.mark.parametrize("sparse", [[-1], ["5"], [True], [5, 5]])
def test_what_is_no_count_of_numbers(sparse: list[object]) -> None:
    data = {"config": {}, "files": {}, "tensors": {"a": ["F32", [2], "0" * 64, *sparse]}}
    with pytest.raises(InvalidCheckpoint, match="not a manifest"):
        Manifest.from_json(manifests.canonical_json(data))
