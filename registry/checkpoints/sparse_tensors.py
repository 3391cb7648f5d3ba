"""The bytes of a tensor that is mostly zeros: a bitmap, then the numbers that are none.

Bit i, the lowest of a byte first, says whether number i has any bit set; bits past the last number
are 0. Behind the bitmap stand these numbers, in order, little-endian. A negative zero is kept as a
number, so expanding gives back every bit, and equal tensors have equal bytes.

Of numbers of two bytes it is smaller than they are themselves from 6.25 % zeros on. Compressed
sparse rows, with an index of two bytes beside each number, are smaller than this only from 93.75 %.
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
    """Of numbers as their bits, in the order of the tensor."""
    flat = raw.reshape(-1)
    kept = flat != 0
    bitmap = np.packbits(kept, bitorder="little")
    return b"".join([bitmap.tobytes(), flat[kept].tobytes()])


def expand(data: bytes, *, dtype: Dtype, count: int, num_nonzero: int) -> Bits:
    """The bits of all `count` numbers. Raises InvalidCheckpoint unless `data` is just what `encode`
    makes of numbers of which `num_nonzero` are not zero."""
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
    if (found := int(np.count_nonzero(kept))) != num_nonzero or padding.any():
        raise InvalidCheckpoint(
            f"a sparse tensor is corrupt: its bitmap has {found} numbers, and"
            f" {int(padding.sum())} behind the last; its entry tells {num_nonzero}"
        )
    values = np.frombuffer(data, numbers, offset=bitmap_bytes)
    if not values.all():
        raise InvalidCheckpoint("a sparse tensor is corrupt: a number that it keeps is zero")
    expanded = np.zeros(count, numbers)
    expanded[kept] = values
    return expanded


def read(blobs: BlobStore, entry: TensorEntry) -> Bits:
    """All numbers of a sparse entry, expanded. Raises NotFound, and InvalidCheckpoint for bytes
    that are not what the entry tells."""
    assert entry.num_nonzero is not None, "a dense entry is read where it lies"
    return expand(
        get_bytes(blobs, entry.digest),
        dtype=entry.dtype,
        count=entry.num_numbers,
        num_nonzero=entry.num_nonzero,
    )


def chunks(blobs: BlobStore, entry: TensorEntry, *, start: int, end: int) -> Iterator[bytes]:
    """Of the raw bytes of any tensor, sparse or dense, those from `start` to before `end`.

    Raises as `read`.
    """
    if entry.num_nonzero is None:
        yield from blobs.read(entry.digest, start=start, end=min(end, entry.num_bytes))
    elif start < end:
        yield read(blobs, entry).view(np.uint8)[start:end].tobytes()


class Opener:
    """The raw bytes of any tensor as a file, for threads that each read a piece of it.

    A sparse tensor is expanded in memory once for all who ask for it one soon after another: the
    last two are kept.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs, self._lock = blobs, Lock()
        self._expanded = lru_cache(maxsize=2)(lambda entry: read(blobs, entry).tobytes())

    def open(self, entry: TensorEntry) -> FileIO | BytesIO:
        """Raises as `read`."""
        if entry.num_nonzero is None:
            return self._blobs.local_path(entry.digest).open("rb", buffering=0)
        with self._lock:
            return BytesIO(self._expanded(entry))


def write(blobs: BlobStore, raw: Bits, *, dtype: Dtype) -> TensorEntry | None:
    """Store a tensor, given by its bits, if that takes fewer bytes than it has; else None.

    Raises OutOfSpace.
    """
    num_nonzero = int(np.count_nonzero(raw))
    made = TensorEntry(dtype, raw.shape, digest="", num_nonzero=num_nonzero)
    if made.num_stored_bytes >= made.num_bytes:
        return None
    return TensorEntry(dtype, raw.shape, blobs.put([encode(raw)]), num_nonzero)


def unsigned(dtype: Dtype) -> np.dtype[np.unsignedinteger]:
    """Whole numbers as wide as those of `dtype`, to look at their bits."""
    return np.dtype(f"<u{DTYPE_BYTES[dtype]}")
