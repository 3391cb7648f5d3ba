"""Describe a checkpoint by a manifest: config, files, and dtype, shape and digest of every tensor.

The digest of a manifest is the SHA-256 of its canonical JSON, so equal checkpoints have equal
digests. Notes say how the checkpoint differs from the folder of its owner.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

from registry import bounded_json
from registry.blobs.blobs import BlobStore, get_bytes, put_bytes
from registry.checkpoints import int8_config
from registry.checkpoints.architecture import Architecture, Shape
from registry.errors import InvalidCheckpoint, InvalidInput
from registry.names import is_digest
from registry.texts import SURROGATES

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


# 100,000 tensors, and the largest config.
MAX_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its safetensors dtype, its shape, and the SHA-256 of its blob.

    The blob of a dense tensor holds the raw little-endian bytes of all numbers. `num_nonzero` is
    set for a sparse tensor: its blob is a bitmap and the numbers that are not zero; see
    `registry.checkpoints.sparse_tensors`.
    """

    dtype: Dtype
    shape: Shape
    digest: str
    num_nonzero: int | None = None

    @property
    def num_numbers(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size of the dense tensor in bytes."""
        return self.num_numbers * DTYPE_BYTES[self.dtype]

    @property
    def num_stored_bytes(self) -> int:
        """Size of the blob in bytes."""
        if self.num_nonzero is None:
            return self.num_bytes
        return -(-self.num_numbers // 8) + self.num_nonzero * DTYPE_BYTES[self.dtype]

    def to_list(self) -> list[Any]:
        """Return the entry in the form of a manifest's JSON."""
        dense = [self.dtype, list(self.shape), self.digest]
        return dense if self.num_nonzero is None else [*dense, self.num_nonzero]

    @classmethod
    def from_list(cls, content: Sequence[Any]) -> Self:
        """Read an entry of a manifest's JSON. Raises ValueError and TypeError."""
        dtype, shape, digest, *sparse = content
        if dtype not in DTYPE_BYTES or not is_digest(digest):
            raise ValueError(f"{dtype!r}, {digest!r} are not a dtype and a SHA-256")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{shape} is not a shape")
        if len(sparse) > 1 or not all(type(n) is int and n >= 0 for n in sparse):
            raise ValueError(f"{sparse} is not the number of nonzero elements")
        return cls(dtype, tuple(shape), digest, *sparse)


@dataclass(frozen=True)
class Cast:
    """The dtype of a tensor in its owner's file, and whether every number kept its value."""

    dtype: Dtype
    is_lossless: bool


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a checkpoint was fetched from: an address, and what it stood for on that day.

    `commit_hash` is of a repository, `digest` the SHA-256 of a file or of the manifest of another
    registry.
    """

    address: str
    commit_hash: str | None = None
    digest: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the fields that are known, as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: dict[str, str]) -> Self:
        """Read the result of `to_json`. Raises ValueError and TypeError."""
        if not all(isinstance(value, str) for value in content.values()):
            raise ValueError(f"{content} is no origin")
        return cls(**content)

    @property
    def sentence(self) -> str:
        """The origin as a person reads it."""
        commit = f", commit {self.commit_hash}" if self.commit_hash else ""
        digest = f", SHA-256 {self.digest}" if self.digest else ""
        return f"from {self.address}{commit}{digest}"


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What differs between a checkpoint and the folder of its owner. Nothing of it is mixed.

    `casts` has the tensors whose dtype became the seed's. `left_out` maps tensors without a place
    in the network to the reason. `rows` has the rows of embeddings that lie beyond the vocabulary
    of the seed, and `tokens` the tokens that the seed's tokenizer does not have. `files` has the
    digests of the owner's tokenizer files, where those of the seed stand in their place. `origin`
    says where the owner has it from.
    """

    casts: dict[str, Cast] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    rows: dict[str, TensorEntry] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    origin: Origin | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the notes that are not empty, as a JSON object."""
        content = {
            "casts": {name: [cast.dtype, cast.is_lossless] for name, cast in self.casts.items()},
            "left_out": self.left_out,
            "rows": {name: entry.to_list() for name, entry in self.rows.items()},
            "tokens": self.tokens,
            "files": self.files,
            "origin": None if self.origin is None else self.origin.to_json(),
        }
        return {name: part for name, part in content.items() if part}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read the result of `to_json`. Raises ValueError, TypeError and AttributeError."""
        casts, rows = content.get("casts", {}), content.get("rows", {})
        files = content.get("files", {})
        if not all(is_digest(digest) for digest in files.values()):
            raise ValueError("a file without a SHA-256")
        return cls(
            casts={name: Cast(*cast) for name, cast in casts.items()},
            left_out=content.get("left_out", {}),
            rows={name: TensorEntry.from_list(entry) for name, entry in rows.items()},
            tokens=content.get("tokens", {}),
            files=files,
            origin=Origin.from_json(content["origin"]) if "origin" in content else None,
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checkpoint: config, tensors by name, and digests of files such as `tokenizer.json`."""

    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    files: dict[str, str] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture of the config. Raises InvalidCheckpoint."""
        return Architecture.from_config(self.config)

    @property
    def tensor_shapes(self) -> dict[str, Shape]:
        """Shapes of all tensors that the config requires, with the scales of int8 weights.

        Raises InvalidCheckpoint if the config is not supported.
        """
        return int8_config.with_scales(self.architecture.tensor_shapes(), self.config)

    @property
    def num_bytes(self) -> int:
        """Size of all tensors in bytes, as dense tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def num_stored_bytes(self) -> int:
        """Size of the blobs of all tensors in bytes; a blob of two tensors counts twice."""
        return sum(tensor.num_stored_bytes for tensor in self.tensors.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON in hexadecimal."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def digests(self) -> set[str]:
        """Return the digests of all tensors and files, and of the rows and files in the notes."""
        entries = (*self.tensors.values(), *self.notes.rows.values())
        return {
            *(entry.digest for entry in entries),
            *self.files.values(),
            *self.notes.files.values(),
        }

    def to_json(self) -> bytes:
        """Return the canonical JSON; see `canonical_json`."""
        content: dict[str, Any] = {
            "config": self.config,
            "files": self.files,
            "tensors": {name: entry.to_list() for name, entry in self.tensors.items()},
        }
        if notes := self.notes.to_json():
            # Without notes the digest is what it was before there were any.
            content["notes"] = notes
        return canonical_json(content)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read the result of `to_json`. Raises InvalidCheckpoint if `data` is anything else."""
        try:
            content = bounded_json.parse(data, max_elements=MAX_ELEMENTS, unfit=SURROGATES)
            config, files, tensors = (content[part] for part in ("config", "files", "tensors"))
            if not all(isinstance(part, dict) for part in (config, files, tensors)):
                raise TypeError("config, files and tensors must be objects")
            if not all(isinstance(digest, str) and is_digest(digest) for digest in files.values()):
                raise ValueError("a file without a SHA-256")
            return cls(
                config=config,
                files=files,
                tensors={name: TensorEntry.from_list(entry) for name, entry in tensors.items()},
                notes=Notes.from_json(content.get("notes", {})),
            )
        except (InvalidInput, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidCheckpoint(f"not a manifest: {error!r}") from error


def load(blobs: BlobStore, digest: str) -> Manifest:
    """Read a manifest from the store. Raises NotFound."""
    return Manifest.from_json(get_bytes(blobs, digest))


def store(blobs: BlobStore, manifest: Manifest) -> str:
    """Write a manifest to the store and return its digest. Raises OutOfSpace."""
    return put_bytes(blobs, manifest.to_json())


def canonical_json(value: object) -> bytes:
    """Return a JSON value as bytes to take a digest of: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def json_digest(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
