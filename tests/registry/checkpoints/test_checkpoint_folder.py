"""A Hugging Face folder is read and copied into a store."""

import json
from pathlib import Path

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.checkpoint_folder import CheckpointFolder
from registry.errors import InvalidCheckpoint
from tests import tiny


def test_a_copied_folder_has_the_same_manifest(tmp_path: Path, blobs: LocalBlobs) -> None:
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    kept = CheckpointFolder.read(folder).keep(blobs)
    assert kept == tiny.store_manifest(blobs, expert=1)
    assert all(blobs.size(digest) is not None for digest in kept.digests())


def test_a_folder_that_contradicts_its_config_is_not_copied(
    tmp_path: Path, blobs: LocalBlobs
) -> None:
    folder = tiny.write_checkpoint(tmp_path / "seed")
    config = tiny.config() | {"num_hidden_layers": 3}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidCheckpoint, match="refused"):
        CheckpointFolder.read(folder).keep(blobs)
    assert not blobs.root.exists()
