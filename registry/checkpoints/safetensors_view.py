"""Read a checkpoint as one `model.safetensors`, which is computed while it is read.

The header is computed from the manifest. The blobs follow one after another; sparse tensors are
expanded. Nothing is stored.
"""

import bisect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.blobs.blobs import BlobStore
from registry.checkpoints import sparse_tensors
from registry.checkpoints.manifests import DTYPE_BYTES, Manifest, TensorEntry
from registry.checkpoints.safetensors_header import LENGTH_BYTES, METADATA


class SafetensorsView:
    """The safetensors file of a manifest; equal manifests give equal bytes."""

    def __init__(self, manifest: Manifest) -> None:
        self._tensors = in_file_order(manifest.tensors)
        self.header = header(self._tensors)
        sizes = [entry.num_bytes for _, entry in self._tensors]
        self._starts = list(itertools.accumulate(sizes, initial=len(self.header)))

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._starts[-1]

    @property
    def entries(self) -> list[TensorEntry]:
        """The tensors in the order of the file, behind the header and without gaps."""
        return [entry for _, entry in self._tensors]

    def read(self, blobs: BlobStore, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end`, in chunks.

        Raises NotFound for a lost blob, and InvalidCheckpoint for a corrupt sparse tensor.
        """
        end = self.size if end is None else min(end, self.size)
        if start < min(end, len(self.header)):
            yield self.header[start : min(end, len(self.header))]
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        for position in range(first, len(self._tensors)):
            _, entry = self._tensors[position]
            offset = self._starts[position]
            if offset >= end:
                return
            inner = max(0, start - offset)
            yield from sparse_tensors.chunks(blobs, entry, start=inner, end=end - offset)


def in_file_order(tensors: Mapping[str, TensorEntry]) -> list[tuple[str, TensorEntry]]:
    """Return tensors in the order in which a file has them.

    Wide dtypes come first, as in the reference implementation, so that tensors are aligned.
    """
    return sorted(tensors.items(), key=lambda item: (-DTYPE_BYTES[item[1].dtype], item[0]))


def header(tensors: Sequence[tuple[str, TensorEntry]]) -> bytes:
    """Return the start of a file whose tensors follow in this order, with its length in front."""
    # transformers refuses a file whose metadata does not name a framework.
    content: dict[str, Any] = {METADATA: {"format": "pt"}}
    reached = 0
    for name, entry in tensors:
        content[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [reached, reached + entry.num_bytes],
        }
        reached += entry.num_bytes
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
