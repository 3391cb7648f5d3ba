"""Sparse tensors keep every bit, and corrupt ones are refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints import exports, numpy_tensors, sparse_tensors
from registry.checkpoints.manifests import Dtype, Manifest, TensorEntry
from registry.checkpoints.safetensors_view import SafetensorsView
from registry.errors import InvalidCheckpoint, NotFound
from tests import tiny

# 13 numbers, so that the last byte of the bitmap has unused bits; one is a negative zero.
BITS = np.array([0, 7, 0, 0, 0x8000, 0, 0, 0, 0, 1, 0, 0, 0], np.uint16)


def mostly_zero(shape: tuple[int, ...], width: int) -> NDArray[np.unsignedinteger]:
    random = np.random.default_rng(3)
    numbers = random.integers(1, 200, shape).astype(f"<u{width}")
    numbers[random.random(shape) < 0.7] = 0
    return numbers


@pytest.mark.parametrize("dtype", ["I8", "BF16", "F32", "F64"])
def test_every_bit_is_restored(dtype: Dtype, blobs: LocalBlobs) -> None:
    numbers = mostly_zero((5, 77), sparse_tensors.unsigned(dtype).itemsize)
    entry = sparse_tensors.write(blobs, numbers, dtype=dtype)
    assert entry is not None
    assert blobs.size(entry.digest) == entry.num_stored_bytes < entry.num_bytes == numbers.nbytes
    assert sparse_tensors.read(blobs, entry).tobytes() == numbers.tobytes()


def test_a_negative_zero_is_kept() -> None:
    data = sparse_tensors.encode(BITS)
    back = sparse_tensors.expand(data, dtype="BF16", count=13, num_nonzero=3)
    assert back.tolist() == BITS.tolist()


def test_a_tensor_of_zeros_is_only_a_bitmap(blobs: LocalBlobs) -> None:
    entry = sparse_tensors.write(blobs, np.zeros((4, 6), np.uint16), dtype="BF16")
    assert entry is not None
    assert entry.num_stored_bytes == 3
    assert not sparse_tensors.read(blobs, entry).any()


def test_a_tensor_that_would_not_shrink_is_not_written(blobs: LocalBlobs) -> None:
    """With numbers of two bytes, more than a sixteenth must be zero."""
    numbers = np.ones(160, np.uint16)
    numbers[:10] = 0
    assert sparse_tensors.write(blobs, numbers, dtype="F16") is None
    numbers[10] = 0
    assert sparse_tensors.write(blobs, numbers, dtype="F16") is not None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "has 7 bytes"),
        (lambda data: data + b"\0", "has 9 bytes"),
        (lambda data: bytes([data[0] | 1]) + data[1:], "bitmap has 4 numbers"),
        (lambda data: data[:1] + bytes([data[1] | 128]) + data[2:], "1 behind the last"),
        (lambda data: data[:2] + b"\0\0" + data[4:], "that it keeps is zero"),
    ],
)
def test_a_corrupt_tensor_is_refused(damage: object, message: str, blobs: LocalBlobs) -> None:
    assert callable(damage)
    digest = put_bytes(blobs, damage(sparse_tensors.encode(BITS)))
    with pytest.raises(InvalidCheckpoint, match=message):
        sparse_tensors.read(blobs, TensorEntry("BF16", (13,), digest, num_nonzero=3))


def test_a_sparse_tensor_is_read_as_an_array(blobs: LocalBlobs) -> None:
    values = np.zeros((3, 50), np.float32)
    values[1, 7] = -2.5
    entry = sparse_tensors.write(blobs, values.view(np.uint32), dtype="F32")
    assert entry is not None
    assert numpy_tensors.read(blobs, entry).tolist() == values.tolist()


def test_files_hold_dense_tensors(blobs: LocalBlobs, tmp_path: Path) -> None:
    """Every range, and an exported file, equals that of the dense tensors."""
    numbers = mostly_zero((8, 33), 2)
    dense = TensorEntry("BF16", numbers.shape, put_bytes(blobs, numbers.tobytes()))
    sparse = sparse_tensors.write(blobs, numbers, dtype="BF16")
    assert sparse is not None
    one = TensorEntry("F32", (1,), put_bytes(blobs, b"abcd"))
    views = [
        SafetensorsView(Manifest(config={}, tensors={"a": one, "b": entry, "c": one}))
        for entry in (dense, sparse)
    ]
    expected, data = (b"".join(view.read(blobs)) for view in views)
    assert data == expected
    for start in range(0, len(data) + 2, 31):
        for end in range(start, len(data) + 3, 57):
            assert b"".join(views[1].read(blobs, start=start, end=end)) == data[start:end]
    manifest = Manifest(config=tiny.config(), tensors={"a": one, "b": sparse})
    exports.export(manifest, blobs, tmp_path / "folder", on_bytes=lambda _: None)
    assert (tmp_path / "folder" / "model.safetensors").read_bytes() == b"".join(
        SafetensorsView(manifest).read(blobs)
    )


def test_readers_of_one_tensor_expand_it_once(blobs: LocalBlobs) -> None:
    numbers = mostly_zero((64, 1024), 2)
    entry = sparse_tensors.write(blobs, numbers, dtype="BF16")
    assert entry is not None
    opener = sparse_tensors.Opener(blobs)
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(opener.open, [entry] * 8))
    # The expanded tensor is still in memory, so the blob is not read again.
    blobs.local_path(entry.digest).unlink()
    files.append(opener.open(entry))
    assert {file.read() for file in files} == {numbers.tobytes()}
    with pytest.raises(NotFound):
        sparse_tensors.Opener(blobs).open(entry)
