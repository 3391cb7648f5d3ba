"""Divide tensors over files of a limited size, and write such a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from io import BytesIO, FileIO
from pathlib import Path
from threading import Lock
from typing import Any

from assembler.stock.tensors import StockTensor
from registry.blobs import direct_io
from registry.blobs.blobs import BlobStore
from registry.blobs.direct_io import Part
from registry.checkpoints import numpy_tensors, safetensors_view, sparse_tensors
from registry.checkpoints.file_names import TENSORS
from registry.checkpoints.manifests import TensorEntry

# Of a Hugging Face folder, as transformers writes it by default.
MAX_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class StockFile:
    """One safetensors file to write."""

    tensors: Mapping[str, StockTensor]

    @cached_property
    def header(self) -> bytes:
        """The bytes before the first tensor."""
        return safetensors_view.header(self._order)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self.header) + sum(entry.num_bytes for _, entry in self._order)

    @cached_property
    def _order(self) -> list[tuple[str, TensorEntry]]:
        entries = {name: tensor.entry for name, tensor in self.tensors.items()}
        return safetensors_view.in_file_order(entries)

    def write(self, path: Path, blobs: BlobStore, *, on_bytes: Callable[[int], None]) -> None:
        """Write the file. Raises OSError, NotFound for a lost blob, and InvalidCheckpoint."""
        opener = _Opener(blobs)
        parts = [
            Part(entry.num_bytes, partial(opener.open, self.tensors[name]))
            for name, entry in self._order
        ]
        direct_io.write(path, self.header, parts, on_bytes=on_bytes)


def files(tensors: Mapping[str, StockTensor], *, max_bytes: int) -> dict[str, StockFile]:
    """Return the files by name: one, or as many as keep the tensors of each within `max_bytes`.

    A larger tensor gets a file of its own. Tensors stay in their order.
    """
    groups: list[dict[str, StockTensor]] = []
    room = 0
    for name, tensor in tensors.items():
        num_bytes = tensor.entry.num_bytes
        if not groups or num_bytes > room:
            groups.append({})
            room = max_bytes
        groups[-1][name] = tensor
        room -= num_bytes
    if len(groups) == 1:
        return {TENSORS: StockFile(groups[0])}
    stem, _, suffix = TENSORS.partition(".")
    return {
        f"{stem}-{number:05d}-of-{len(groups):05d}.{suffix}": StockFile(group)
        for number, group in enumerate(groups, start=1)
    }


def index(files: Mapping[str, StockFile]) -> dict[str, Any]:
    """Return what the index of several files says: which file has which tensor."""
    tensors = {name: file for file, content in files.items() for name in content.tensors}
    sizes = (t.entry.num_bytes for content in files.values() for t in content.tensors.values())
    return {"metadata": {"total_size": sum(sizes)}, "weight_map": tensors}


class _Opener:
    """Opens the bytes of tensors for threads that each read a part of one.

    Of computed tensors the last two stay in memory, so that the threads compute each only once.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._stored, self._lock = sparse_tensors.Opener(blobs), Lock()

        def compute(tensor: StockTensor) -> bytes:
            assert tensor.compute is not None, "stored tensors are read"
            values = tensor.compute(blobs)
            assert values.shape == tensor.entry.shape, "a header announced another shape"
            return numpy_tensors.narrow(values, tensor.entry.dtype).tobytes()

        self._computed = lru_cache(maxsize=2)(compute)

    def open(self, tensor: StockTensor) -> FileIO | BytesIO:
        """Open the bytes of a tensor. Raises NotFound and InvalidCheckpoint."""
        if tensor.compute is None:
            return self._stored.open(tensor.entry)
        with self._lock:
            return BytesIO(self._computed(tensor))
