"""Bytes on an owner's disk that become blobs: whole files, and tensors inside of them.

A tensor may be sent in another dtype than it has. It is converted while it is read, so that neither
memory nor disk ever holds a second copy.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

from registry.blobs.blobs import CHUNK_BYTES
from registry.checkpoints.architecture import Shape
from registry.checkpoints.manifests import DTYPE_BYTES, Dtype
from registry.checkpoints.safetensors_header import read_header
from registry.ingest.casts import convert


class Sendable(Protocol):
    """Bytes that become a blob, wherever they are."""

    @property
    def num_bytes(self) -> int:
        """Number of bytes that are sent."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes that are sent, in chunks."""


@dataclass(frozen=True)
class Source:
    """The bytes of a blob in a file: from `start` to before `end`."""

    path: Path
    start: int
    end: int

    @classmethod
    def whole(cls, path: Path) -> "Source":
        """Return a source of all bytes of a file."""
        return Source(path, 0, path.stat().st_size)

    @property
    def num_bytes(self) -> int:
        """Number of bytes that are sent."""
        return self.end - self.start

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes that are sent, in chunks."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            remaining = self.end - self.start
            while remaining and (chunk := file.read(min(CHUNK_BYTES, remaining))):
                remaining -= len(chunk)
                yield chunk

    def digest(self) -> str:
        """Return the SHA-256 of the bytes that are sent, in hexadecimal."""
        sha = hashlib.sha256()
        for chunk in self.chunks():
            sha.update(chunk)
        return sha.hexdigest()


@dataclass(frozen=True)
class TensorSource(Source):
    """A tensor in a safetensors file, which may be sent in another `dtype` than it has there."""

    name: str
    shape: Shape
    stored_dtype: Dtype
    dtype: Dtype

    @property
    def is_cast(self) -> bool:
        """Whether it is sent in another dtype."""
        return self.dtype != self.stored_dtype

    @property
    def num_bytes(self) -> int:
        """Number of bytes that are sent."""
        stored = DTYPE_BYTES[self.stored_dtype]
        return (self.end - self.start) // stored * DTYPE_BYTES[self.dtype]

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes that are sent, in chunks. Raises InvalidCheckpoint, see `convert`."""
        for data, _ in self._converted():
            yield data

    def hashed(self) -> tuple[str, bool]:
        """Return the digest, and whether every number keeps its value. Raises InvalidCheckpoint."""
        sha, is_lossless = hashlib.sha256(), True
        for data, kept in self._converted():
            sha.update(data)
            is_lossless = is_lossless and kept
        return sha.hexdigest(), is_lossless

    def cast(self, dtype: Dtype) -> Self:
        """Return the same tensor, sent in another dtype."""
        return replace(self, dtype=dtype)

    def rows(self, first: int, last: int) -> Self:
        """Return the rows of a matrix from `first` to before `last`."""
        row_bytes = (self.end - self.start) // self.shape[0]
        return replace(
            self,
            start=self.start + first * row_bytes,
            end=self.start + last * row_bytes,
            shape=(last - first, *self.shape[1:]),
        )

    def _converted(self) -> Iterator[tuple[bytes, bool]]:
        for chunk in super().chunks():
            if self.is_cast:
                yield convert(chunk, self.stored_dtype, self.dtype, name=self.name)
            else:
                yield chunk, True


def read_tensors(path: Path) -> dict[str, TensorSource]:
    """Return the tensors of a safetensors file by name. Raises InvalidCheckpoint."""
    return {
        name: TensorSource(path, span.start, span.end, name, span.shape, span.dtype, span.dtype)
        for name, span in read_header(path).items()
    }
