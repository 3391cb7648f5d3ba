"""A Hugging Face folder is read and copied into a store."""

import json
from pathlib import Path

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.errors import InvalidCheckpoint
from registry.ingest.checkpoint_folder import CheckpointFolder
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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("{", '{"rope_theta": Infinity,'), "Infinity is no number of JSON"),
        (("{", "\ufeff{"), "a byte-order mark"),
        (("}", ",}"), "a comma after the last entry"),
        (("{", "[{"), "not JSON"),
    ],
)
def test_a_config_that_is_no_json_is_refused_in_one_sentence(
    tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    path = tiny.write_checkpoint(tmp_path / "seed") / "config.json"
    old, new = change
    # The last bracket closes the object.
    text = json.dumps(tiny.config())
    path.write_text(new + text[1:] if old == "{" else text[:-1] + new)
    with pytest.raises(InvalidCheckpoint, match=reason):
        CheckpointFolder.read(path.parent)
