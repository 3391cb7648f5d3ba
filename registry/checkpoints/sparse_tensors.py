"""Store tensors with many zeros as a bitmap followed by the other numbers.

Bit i of the bitmap is set if number i has any bit set; the lowest bit of a byte comes first, and
bits past the last number are 0. The numbers that are not zero follow in order, little-endian. A
negative zero has a bit set and is kept. So expanding restores every bit, and equal tensors have
equal bytes.

With numbers of two bytes this form is smaller than the dense tensor from 6.25 % zeros on.
Compressed sparse rows with an index of two bytes for each number are smaller still only from
93.75 % on.
"""

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO, FileIO
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.manifests import DTYPE_BYTES, Dtype, TensorEntry
from registry.errors import InvalidCheckpoint

Bits = NDArray[np.unsignedinteger]


def encode(raw: Bits) -> bytes:
    """Encode a tensor whose numbers are given as unsigned integers with the same bits."""
    flat = raw.reshape(-1)
    kept = flat != 0
    bitmap = np.packbits(kept, bitorder="little")
    return b"".join([bitmap.tobytes(), flat[kept].tobytes()])


def expand(data: bytes, *, dtype: Dtype, count: int, num_nonzero: int) -> Bits:
    """Decode the result of `encode`: the bits of all `count` numbers as unsigned integers.

    Raises InvalidCheckpoint unless `data` is exactly the encoding of `count` numbers with
    `num_nonzero` nonzero ones.
    """
    numbers = unsigned(dtype)
    bitmap_bytes = -(-count // 8)
    expected = bitmap_bytes + num_nonzero * numbers.itemsize
    if len(data) != expected:
        raise InvalidCheckpoint(
            f"a sparse tensor is corrupt: it has {len(data)} bytes, a bitmap of {count} numbers"
            f" with {num_nonzero} that are not zero takes {expected}"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8, bitmap_bytes), bitorder="little")
    kept, padding = bits[:count].view(np.bool_), bits[count:]
    if (num_kept := int(np.count_nonzero(kept))) != num_nonzero or padding.any():
        raise InvalidCheckpoint(
            f"a sparse tensor is corrupt: its bitmap has {num_kept} numbers, and"
            f" {int(padding.sum())} behind the last; its entry tells {num_nonzero}"
        )
    values = np.frombuffer(data, numbers, offset=bitmap_bytes)
    if not values.all():
        raise InvalidCheckpoint("a sparse tensor is corrupt: a number that it keeps is zero")
    expanded = np.zeros(count, numbers)
    expanded[kept] = values
    return expanded


def read(blobs: BlobStore, entry: TensorEntry) -> Bits:
    """Read a sparse tensor and expand it; return the bits of all numbers, flat.

    Raises NotFound, and InvalidCheckpoint if the bytes do not match the entry.
    """
    assert entry.num_nonzero is not None, "the entry must be sparse"
    return expand(
        get_bytes(blobs, entry.digest),
        dtype=entry.dtype,
        count=entry.num_numbers,
        num_nonzero=entry.num_nonzero,
    )


def chunks(blobs: BlobStore, entry: TensorEntry, *, start: int, end: int) -> Iterator[bytes]:
    """Yield the raw bytes of a tensor, sparse or dense, from `start` to before `end`.

    Raises NotFound, and InvalidCheckpoint for a corrupt sparse tensor.
    """
    if entry.num_nonzero is None:
        yield from blobs.read(entry.digest, start=start, end=min(end, entry.num_bytes))
    elif start < end:
        yield read(blobs, entry).view(np.uint8)[start:end].tobytes()


class Opener:
    """Opens the raw bytes of tensors as files, for threads that each read a part of a tensor.

    Sparse tensors are expanded in memory. The last two stay in memory, so that the threads of one
    tensor expand it once.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs, self._lock = blobs, Lock()
        self._expanded = lru_cache(maxsize=2)(lambda entry: read(blobs, entry).tobytes())

    def open(self, entry: TensorEntry) -> FileIO | BytesIO:
        """Open the dense bytes of a tensor.

        Raises NotFound, and InvalidCheckpoint for a corrupt sparse tensor.
        """
        if entry.num_nonzero is None:
            return self._blobs.local_path(entry.digest).open("rb", buffering=0)
        with self._lock:
            return BytesIO(self._expanded(entry))


def write(blobs: BlobStore, raw: Bits, *, dtype: Dtype) -> TensorEntry | None:
    """Store a tensor, given by its bits, as a sparse one; return None if that is not smaller.

    Raises OutOfSpace.
    """
    num_nonzero = int(np.count_nonzero(raw))
    entry = TensorEntry(dtype, raw.shape, digest="", num_nonzero=num_nonzero)
    if entry.num_stored_bytes >= entry.num_bytes:
        return None
    return TensorEntry(dtype, raw.shape, blobs.put([encode(raw)]), num_nonzero)


def unsigned(dtype: Dtype) -> np.dtype[np.unsignedinteger]:
    """Return the unsigned NumPy dtype with the width of `dtype`, which shows its bits."""
    return np.dtype(f"<u{DTYPE_BYTES[dtype]}")
