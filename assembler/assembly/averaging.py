"""The mean of tensors, a piece at a time: what it needs of memory does not grow with them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np

from registry import numpy_tensors
from registry.blobs import BlobStore
from registry.manifests import TensorEntry
from registry.numpy_tensors import RAW_DTYPES, Floats

# Numbers at a time: all buffers of one step fit into a core's own cache.
CHUNK_NUMBERS = 1 << 17
# Means at a time: each waits for the disk at its end, and holds a few MB before.
AT_A_TIME = 4


def mean(
    entries: Sequence[TensorEntry],
    *,
    blobs: BlobStore,
    weights: Sequence[float] | None = None,
) -> TensorEntry:
    """The mean of tensors of one shape, stored; the mean of equal ones is the first itself.

    Summed in float32 in the order of `entries`, divided once, rounded once to the first one's
    dtype. `weights` are relative, and count as they are divided by their sum; a negative one takes
    a tensor out of a mean it is in. Raises NotFound, OutOfSpace.
    """
    first = entries[0]
    assert all(entry.shape == first.shape for entry in entries)
    assert all(entry.num_nonzero is None for entry in entries), "what is registered is dense"
    if all(entry.digest == first.digest for entry in entries):
        return first
    digest = blobs.put(_chunks(entries, weights or [1.0] * len(entries), blobs))
    return TensorEntry(first.dtype, first.shape, digest)


def each(names: Sequence[str], mean_of: Callable[[str], TensorEntry]) -> dict[str, TensorEntry]:
    """`mean_of` every name. NumPy, hashing and the disk leave other threads the interpreter: while
    one mean is on its way to the disk, the next is computed. Raises what the first one raised."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return dict(zip(names, pool.map(mean_of, names), strict=True))


def _chunks(
    entries: Sequence[TensorEntry], weights: Sequence[float], blobs: BlobStore
) -> Iterator[bytes]:
    # Read and not mapped: pages of a mapping would count as this process's memory.
    with ExitStack() as stack:
        files = [
            stack.enter_context(blobs.local_path(entry.digest).open("rb", buffering=0))
            for entry in entries
        ]
        total_weight = np.float32(sum(weights))
        while len(total := _next(files[0], entries[0])):
            _weigh(total, weights[0])
            for file, entry, weight in zip(files[1:], entries[1:], weights[1:], strict=True):
                values = _next(file, entry)
                _weigh(values, weight)
                total += values
            total /= total_weight
            yield numpy_tensors.narrowed(total, entries[0].dtype).tobytes()


def _next(file: BinaryIO, entry: TensorEntry) -> Floats:
    dtype = RAW_DTYPES[entry.dtype]
    data = file.read(CHUNK_NUMBERS * dtype.itemsize)
    return numpy_tensors.widened(np.frombuffer(data, dtype), entry.dtype)


def _weigh(values: Floats, weight: float) -> None:
    if weight != 1:
        values *= np.float32(weight)
