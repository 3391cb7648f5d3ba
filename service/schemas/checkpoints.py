"""Sending and downloading checkpoints."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, Field

from registry.checkpoints.manifests import Cast, Manifest, Notes, Origin, TensorEntry
from service.schemas.common import Address, Line, Request, Text

# No disk holds more.
MAX_BYTES = 2**63 - 1
MAX_TENSORS = 100_000
# More than anybody adds to a tokenizer.
MAX_TOKENS = 10_000

FloatDtype = Literal["BF16", "F16", "F32"]


class ShardBody(Request):
    """A safetensors file, announced before its bytes are sent."""

    file: Line = Field(examples=["model.safetensors"], description="Name of the file.")
    size: int = Field(ge=0, le=MAX_BYTES, description="Bytes of the whole file.")
    header: str = Field(description="The JSON text of its header, as it stands in the file.")


class CastBody(Request):
    """A tensor whose dtype the sender changed to the seed's."""

    dtype: FloatDtype = Field(description="The dtype in the file of the owner.")
    is_lossless: bool = Field(description="Whether every number kept its value.")


class RowsBody(Request):
    """Rows of a matrix beyond the vocabulary of the seed; they are kept and not mixed."""

    dtype: FloatDtype = Field(description="The dtype of the matrix.")
    shape: list[Annotated[int, Field(ge=1, le=MAX_BYTES)]] = Field(
        min_length=2, max_length=2, description="Rows and width."
    )
    digest: Line = Field(description="SHA-256 of their raw bytes.")


class OriginBody(Request):
    """Where a checkpoint was fetched from, as its sender says."""

    address: Address = Field(
        examples=["hf:owner/name@main"],
        description="The address, with the revision that was asked for.",
    )
    commit_hash: Line | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="The commit that it stood for."
    )
    digest: Line | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of what it stood for."
    )

    def origin(self) -> Origin:
        """Return the origin as a manifest has it."""
        return Origin(address=self.address, commit_hash=self.commit_hash, digest=self.digest)


class NotesBody(Request):
    """What differs between the checkpoint as announced and the folder of its owner."""

    casts: dict[Line, CastBody] = Field(
        default={}, max_length=MAX_TENSORS, description="Tensor name -> its dtype before."
    )
    rows: dict[Line, RowsBody] = Field(
        default={}, max_length=2, description="Name of a matrix -> its rows that are kept aside."
    )
    tokens: dict[Line, Annotated[int, Field(ge=0, le=MAX_BYTES)]] = Field(
        default={},
        max_length=MAX_TOKENS,
        description="Tokens that the tokenizer of the family does not have -> their numbers.",
    )
    files: dict[Line, Line] = Field(
        default={},
        max_length=1000,
        description="File name -> SHA-256: the owner's tokenizer, where the family's is announced.",
    )
    origin: OriginBody | None = Field(
        default=None, description="Where it was fetched from; null for a folder of the owner."
    )

    def notes(self) -> Notes:
        """Return the notes as a manifest has them."""
        return Notes(
            casts={name: Cast(cast.dtype, cast.is_lossless) for name, cast in self.casts.items()},
            rows={
                name: TensorEntry(rows.dtype, tuple(rows.shape), rows.digest)
                for name, rows in self.rows.items()
            },
            tokens=self.tokens,
            files=self.files,
            origin=None if self.origin is None else self.origin.origin(),
        )


class TensorBody(BaseModel):
    """A tensor of a stored checkpoint."""

    dtype: FloatDtype = Field(description="Its dtype; those of experts get the seed's.")
    shape: list[int] = Field(description="Its shape.")
    digest: str = Field(description="SHA-256 of its raw bytes.")


class CheckpointBody(BaseModel):
    """A stored checkpoint as others are compared with it."""

    manifest_digest: str = Field(description="SHA-256 that stands for the whole checkpoint.")
    config: dict[str, Any] = Field(description="config.json")
    files: dict[str, str] = Field(description="File name -> SHA-256.")
    tensors: dict[str, TensorBody] = Field(description="Tensor name -> tensor.")

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        return cls(
            manifest_digest=manifest.digest,
            config=manifest.config,
            files=manifest.files,
            tensors={
                name: TensorBody(
                    dtype=cast(FloatDtype, entry.dtype),
                    shape=list(entry.shape),
                    digest=entry.digest,
                )
                for name, entry in manifest.tensors.items()
            },
        )

    def manifest(self) -> Manifest:
        """Return the manifest, without notes."""
        return Manifest(
            config=self.config,
            files=self.files,
            tensors={
                name: TensorEntry(tensor.dtype, tuple(tensor.shape), tensor.digest)
                for name, tensor in self.tensors.items()
            },
        )


class CheckpointRequest(Request):
    """A checkpoint, announced by its headers; the answer says which bytes to send."""

    license: Line = Field(
        min_length=1,
        max_length=100,
        examples=["Apache-2.0"],
        description="License, as an SPDX expression; `LicenseRef-NAME` for terms that SPDX does not"
        " know.",
    )
    description: Text = Field(
        default="", max_length=10_000, description="What the model is, for readers."
    )
    config: dict[str, Any] = Field(description="config.json")
    files: dict[Line, Line] = Field(
        max_length=1000, description="File name -> SHA-256: tokenizer.json and the like."
    )
    shards: list[ShardBody] = Field(
        min_length=1, max_length=1000, description="The safetensors files of the checkpoint."
    )
    digests: dict[Line, Line] = Field(
        max_length=MAX_TENSORS, description="Tensor name -> SHA-256 of its raw bytes."
    )
    notes: NotesBody = Field(
        default=NotesBody(), description="What was changed; the client library fills it in."
    )


class MissingBlob(BaseModel):
    """A blob to send: PUT its bytes to `url`, which may be relative, with `headers`."""

    digest: str = Field(description="SHA-256 of the bytes.")
    size: int | None = Field(description="Bytes of a tensor; null for a file.")
    url: str = Field(description="Address that takes the bytes.")
    headers: dict[str, str] = Field(default={}, description="Headers that the request must have.")


class FileBody(BaseModel):
    """A file that can be downloaded."""

    name: str = Field(description="Name of the file.")
    size: int = Field(description="Bytes of the file.")
    digest: str | None = Field(
        default=None,
        description="SHA-256 of the file; null for weights that are put together when they are"
        " asked for.",
    )


class FilesBody(BaseModel):
    """The files of a checkpoint."""

    object: Literal["list"] = Field(default="list", description="The kind of this object.")
    manifest_digest: str = Field(description="SHA-256 that stands for the whole checkpoint.")
    attestation_digest: str | None = Field(
        description="SHA-256 of the signed statement about a published mix; null without one."
    )
    data: list[FileBody] = Field(description="Every file, in the order of a Hugging Face folder.")


class SigningKeyBody(BaseModel):
    """The public key that verifies the signatures of this service."""

    object: Literal["signing_key"] = Field(
        default="signing_key", description="The kind of this object."
    )
    algorithm: Literal["ed25519"] = Field(default="ed25519", description="How signatures are made.")
    public_key: str = Field(description="32 bytes in hexadecimal.")


class DocumentsWish(Request):
    """What becomes of the documents of a version."""

    private_documents: bool = Field(
        default=False,
        description="Whether no report may quote the documents and no projection learn from them.",
    )
    forget_documents: bool = Field(
        default=False,
        description="Whether the documents are deleted once the domain is embedded. They are"
        " private until then.",
    )
