"""A checkpoint as a list of tensors: config, files, and name -> (dtype, shape, digest).

The manifest's own digest is the SHA-256 of its canonical JSON: equal checkpoints have equal names.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from registry.blobs.blobs import BlobStore, get_bytes, put_bytes
from registry.checkpoints import int8_config
from registry.checkpoints.architecture import Architecture, Shape
from registry.errors import InvalidCheckpoint

Dtype = Literal["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]

DTYPE_BYTES: dict[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: safetensors dtype name, shape, and the SHA-256 of its blob.

    The blob holds the raw little-endian bytes of all numbers, or where `num_nonzero` says how many
    are not zero, a bitmap and these, as in `registry.checkpoints.sparse_tensors`.
    """

    dtype: Dtype
    shape: Shape
    digest: str
    num_nonzero: int | None = None

    @property
    def num_numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Of the tensor in memory."""
        return self.num_numbers * DTYPE_BYTES[self.dtype]

    @property
    def num_stored_bytes(self) -> int:
        """Of its blob."""
        if self.num_nonzero is None:
            return self.num_bytes
        return -(-self.num_numbers // 8) + self.num_nonzero * DTYPE_BYTES[self.dtype]

    def to_list(self) -> list[Any]:
        """As it stands in a manifest."""
        dense = [self.dtype, list(self.shape), self.digest]
        return dense if self.num_nonzero is None else [*dense, self.num_nonzero]

    @classmethod
    def from_list(cls, content: Sequence[Any]) -> Self:
        """Raises ValueError, TypeError."""
        dtype, shape, digest, *sparse = content
        if len(sparse) > 1 or not all(type(n) is int and n >= 0 for n in sparse):
            raise ValueError(f"{sparse} is not how many numbers are not zero")
        return cls(dtype, tuple(shape), digest, *sparse)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of; `files` maps a file name (tokenizer.json) to its digest."""

    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    files: dict[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        return Architecture.from_config(self.config)

    @property
    def tensor_shapes(self) -> dict[str, Shape]:
        """Every tensor that the config asks for, scales of int8 weights among them.

        Raises InvalidCheckpoint for a config that is not supported.
        """
        return int8_config.with_scales(self.architecture.tensor_shapes(), self.config)

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def num_stored_bytes(self) -> int:
        return sum(tensor.num_stored_bytes for tensor in self.tensors.values())

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    def digests(self) -> set[str]:
        """Digests of everything the checkpoint needs, tensors and files."""
        return {tensor.digest for tensor in self.tensors.values()} | set(self.files.values())

    def to_json(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        return canonical_json(
            {
                "config": self.config,
                "files": self.files,
                "tensors": {name: entry.to_list() for name, entry in self.tensors.items()},
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises InvalidCheckpoint when `data` is not what `to_json` writes."""
        try:
            content = json.loads(data)
            return cls(
                config=content["config"],
                files=content["files"],
                tensors={
                    name: TensorEntry.from_list(entry) for name, entry in content["tensors"].items()
                },
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidCheckpoint(f"not a manifest: {error!r}") from error


def load(blobs: BlobStore, digest: str) -> Manifest:
    """Read a manifest from the store. Raises NotFound."""
    return Manifest.from_json(get_bytes(blobs, digest))


def store(blobs: BlobStore, manifest: Manifest) -> str:
    """Write a manifest to the store and return its digest. Raises OutOfSpace."""
    return put_bytes(blobs, manifest.to_json())


def canonical_json(value: object) -> bytes:
    """The one byte string that stands for a JSON value; digests are taken over it."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def json_digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
