"""Bytes of a checkpoint are read again before an engine maps them."""

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import byte_checks
from registry.checkpoints.tensor_names import EMBEDDINGS
from registry.errors import InvalidCheckpoint
from tests import tiny


def test_every_changed_blob_is_named(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    byte_checks.check_digests(blobs, manifest)
    for digest in (manifest.tensors[EMBEDDINGS].digest, manifest.files["tokenizer.json"]):
        path = blobs.local_path(digest)
        path.chmod(0o600)
        data = path.read_bytes()
        path.write_bytes(data[:-1])
    with pytest.raises(InvalidCheckpoint, match="stored bytes were changed") as refused:
        byte_checks.check_digests(blobs, manifest)
    assert {problem.pointer for problem in refused.value.problems} == {
        f"/tensors/{EMBEDDINGS}",
        "/files/tokenizer.json",
    }
