"""Compute means of tensors in pieces, so that memory does not grow with their size."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np

from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import TensorEntry
from registry.checkpoints.numpy_tensors import RAW_DTYPES, Floats

# Numbers in one piece: all buffers of one step fit into the private cache of a core.
CHUNK_NUMBERS = 1 << 17
# Means computed at a time: each holds a few MB, and waits for the disk at its end.
NUM_THREADS = 4


def mean(
    entries: Sequence[TensorEntry],
    *,
    blobs: BlobStore,
    weights: Sequence[float] | None = None,
) -> TensorEntry:
    """Store the mean of tensors of one shape and return its entry; for equal tensors, the first.

    The sum is computed in float32 in the order of `entries`, divided once, and rounded once to the
    dtype of the first tensor. `weights` are divided by their sum; a negative weight removes a
    tensor from a mean. Raises NotFound, OutOfSpace.
    """
    first = entries[0]
    assert all(entry.shape == first.shape for entry in entries)
    assert all(entry.num_nonzero is None for entry in entries), "registered tensors are dense"
    if all(entry.digest == first.digest for entry in entries):
        return first
    digest = blobs.put(_chunks(entries, weights or [1.0] * len(entries), blobs))
    return TensorEntry(first.dtype, first.shape, digest)


def each(names: Sequence[str], mean_of: Callable[[str], TensorEntry]) -> dict[str, TensorEntry]:
    """Call `mean_of` for every name, in threads, and return the results by name.

    NumPy, hashing and disk writes release the interpreter lock, so one mean is computed while
    another is written. Raises the first error.
    """
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return dict(zip(names, pool.map(mean_of, names), strict=True))


def _chunks(
    entries: Sequence[TensorEntry], weights: Sequence[float], blobs: BlobStore
) -> Iterator[bytes]:
    # Read, not mapped: mapped pages would count as memory of this process.
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
            yield numpy_tensors.narrow(total, entries[0].dtype).tobytes()


def _next(file: BinaryIO, entry: TensorEntry) -> Floats:
    dtype = RAW_DTYPES[entry.dtype]
    data = file.read(CHUNK_NUMBERS * dtype.itemsize)
    return numpy_tensors.widen(np.frombuffer(data, dtype), entry.dtype)


def _weigh(values: Floats, weight: float) -> None:
    if weight != 1:
        values *= np.float32(weight)
