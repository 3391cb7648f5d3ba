"""Read and write float tensors with NumPy, for processes that must not wait two seconds for torch.

NumPy has no bfloat16. A bfloat16 number is the upper half of a float32, and is handled as such.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from registry.blobs.blobs import CHUNK_BYTES, BlobStore
from registry.checkpoints import sparse_tensors
from registry.checkpoints.manifests import Dtype, TensorEntry

Floats = NDArray[np.float32]
Raw = NDArray[np.generic]

RAW_DTYPES: dict[Dtype, np.dtype[np.generic]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}

# Rows of a matrix that are read at a time, so that they stay in the cache of one core.
BLOCK_ROWS = 256


def read(blobs: BlobStore, entry: TensorEntry) -> Floats:
    """Read a tensor as float32.

    Raises NotFound, and InvalidCheckpoint for a corrupt sparse tensor.
    """
    dtype = RAW_DTYPES[entry.dtype]
    if entry.num_nonzero is None:
        raw = np.fromfile(blobs.local_path(entry.digest), dtype)
    else:
        raw = sparse_tensors.read(blobs, entry).view(dtype)
    return widen(raw, entry.dtype).reshape(entry.shape)


def product(x: Floats, blobs: BlobStore, matrix: TensorEntry, *, first_row: int = 0) -> Floats:
    """Return `x @ matrix[first_row:].T` [..., R] for `x` [..., W] and R rows of width W.

    Only BLOCK_ROWS rows of the matrix are in memory at a time. Raises NotFound.
    """
    num_rows = matrix.shape[0]
    values = np.empty((*x.shape[:-1], num_rows - first_row), np.float32)
    for start in range(first_row, num_rows, BLOCK_ROWS):
        rows = read_rows(blobs, matrix, slice(start, start + BLOCK_ROWS))
        values[..., start - first_row : start - first_row + len(rows)] = x @ rows.T
    return values


def read_rows(blobs: BlobStore, matrix: TensorEntry, rows: slice) -> Floats:
    """Read the rows [B, W] of a matrix from `rows.start` to `rows.stop`. Raises NotFound."""
    assert matrix.num_nonzero is None, "the matrix must be dense"
    _, width = matrix.shape
    dtype, path = RAW_DTYPES[matrix.dtype], blobs.local_path(matrix.digest)
    count, offset = (rows.stop - rows.start) * width, rows.start * width * dtype.itemsize
    raw = np.fromfile(path, dtype, count=count, offset=offset)
    return widen(raw, matrix.dtype).reshape(-1, width)


def write(blobs: BlobStore, values: Floats, *, dtype: Dtype) -> TensorEntry:
    """Store an array, rounded to `dtype`, and return its entry. Raises OutOfSpace."""
    digest = blobs.put(_chunks(narrow(values, dtype)))
    return TensorEntry(dtype, values.shape, digest)


def widen(raw: Raw, dtype: Dtype) -> Floats:
    """Convert stored numbers to float32, without rounding."""
    if dtype == "BF16":
        bits = raw.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return raw.astype(np.float32)


def narrow(values: Floats, dtype: Dtype) -> Raw:
    """Round numbers to `dtype` as they are stored, to nearest, ties to even."""
    if dtype == "BF16":
        bits = values.view(np.uint32)
        # Add 0x7FFF plus the lowest kept bit: this rounds to nearest, ties to even.
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        return rounded.astype(np.uint16)
    return values.astype(RAW_DTYPES[dtype])


def _chunks(raw: Raw) -> Iterator[bytes]:
    data = np.ascontiguousarray(raw).reshape(-1).view(np.uint8)
    for start in range(0, data.size, CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES].tobytes()
