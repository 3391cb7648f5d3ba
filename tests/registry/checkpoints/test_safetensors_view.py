"""The reference implementation reads the computed file, and every range of it is right."""

from pathlib import Path

import pytest
import safetensors.numpy
from safetensors import safe_open

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.safetensors_header import read_header
from registry.checkpoints.safetensors_view import SafetensorsView
from registry.errors import NotFound
from tests import tiny


@pytest.fixture
def mixed(blobs: LocalBlobs) -> Manifest:
    """Make a manifest with tensors of several widths, an empty one, and a blob used twice."""
    shared = put_bytes(blobs, bytes(range(12)))
    return Manifest(
        config={},
        tensors={
            "odd": TensorEntry("U8", (3,), put_bytes(blobs, b"abc")),
            "empty": TensorEntry("F32", (0, 4), put_bytes(blobs, b"")),
            "one": TensorEntry("F32", (3,), shared),
            "two": TensorEntry("F16", (2, 3), shared),
        },
    )


def test_the_reference_implementation_reads_the_file(blobs: LocalBlobs, mixed: Manifest) -> None:
    view = SafetensorsView(mixed)
    data = b"".join(view.read(blobs))
    assert len(data) == view.size
    arrays = safetensors.numpy.load(data)
    assert arrays["one"].tobytes() == arrays["two"].tobytes() == bytes(range(12))
    assert arrays["odd"].tobytes() == b"abc"
    assert arrays["empty"].shape == (0, 4)


def test_every_range_has_the_bytes_of_the_file(blobs: LocalBlobs, mixed: Manifest) -> None:
    view = SafetensorsView(mixed)
    data = b"".join(view.read(blobs))
    for start in range(0, len(data) + 2, 5):
        for end in range(start, len(data) + 3, 7):
            assert b"".join(view.read(blobs, start=start, end=end)) == data[start:end]


def test_a_checkpoint_is_read_back_unchanged(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"".join(SafetensorsView(manifest).read(blobs)))
    spans = read_header(path)
    assert {n: (s.dtype, s.shape) for n, s in spans.items()} == {
        n: (t.dtype, t.shape) for n, t in manifest.tensors.items()
    }
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_file_does_not_depend_on_the_order_of_the_manifest(mixed: Manifest) -> None:
    backwards = Manifest(config={}, tensors=dict(reversed(mixed.tensors.items())))
    assert SafetensorsView(backwards).header == SafetensorsView(mixed).header


def test_a_lost_blob_is_not_found(blobs: LocalBlobs, mixed: Manifest) -> None:
    blobs.local_path(mixed.tensors["odd"].digest).unlink()
    with pytest.raises(NotFound):
        list(SafetensorsView(mixed).read(blobs))
