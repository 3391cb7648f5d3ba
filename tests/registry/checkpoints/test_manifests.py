"""Equal checkpoints have equal manifests, and a stored manifest is read unchanged."""

from dataclasses import replace

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint
from tests import tiny


def test_a_stored_manifest_is_read_unchanged(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    digest = manifests.store(blobs, manifest)
    assert digest == manifest.digest
    assert manifests.load(blobs, digest) == manifest


def test_the_digest_does_not_depend_on_the_order(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    backwards = Manifest(
        config=dict(reversed(manifest.config.items())),
        tensors=dict(reversed(manifest.tensors.items())),
        files=dict(reversed(manifest.files.items())),
    )
    assert backwards.digest == manifest.digest


def test_experts_share_unchanged_tensors(blobs: LocalBlobs) -> None:
    seed, expert = tiny.store_manifest(blobs), tiny.store_manifest(blobs, expert=1)
    changed = {name for name, entry in expert.tensors.items() if entry != seed.tensors[name]}
    assert changed == {name for name in expert.tensors if ".mlp." in name}


@pytest.mark.parametrize("data", [b"", b"[]", b'{"config": {}}', b'{"tensors": {"a": 1}}'])
def test_other_bytes_are_not_a_manifest(data: bytes) -> None:
    with pytest.raises(InvalidCheckpoint, match="not a manifest"):
        Manifest.from_json(data)


def test_a_sparse_entry_is_read_unchanged(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    name, entry = next(iter(manifest.tensors.items()))
    sparse = replace(manifest, tensors=manifest.tensors | {name: replace(entry, num_nonzero=5)})
    assert Manifest.from_json(sparse.to_json()) == sparse
    assert sparse.num_bytes == manifest.num_bytes
    saved = entry.num_bytes - (entry.num_numbers // 8 + 2 * 5)
    assert sparse.num_stored_bytes == manifest.num_stored_bytes - saved


@pytest.mark.parametrize("sparse", [[-1], ["5"], [True], [5, 5]])
def test_a_wrong_count_of_a_sparse_entry_is_refused(sparse: list[object]) -> None:
    data = {"config": {}, "files": {}, "tensors": {"a": ["F32", [2], "0" * 64, *sparse]}}
    with pytest.raises(InvalidCheckpoint, match="not a manifest"):
        Manifest.from_json(manifests.canonical_json(data))
