"""Sending and downloading checkpoints."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.schemas.common import Line, Request, Text

# No disk holds more.
MAX_BYTES = 2**63 - 1


class ShardBody(Request):
    """A safetensors file, announced before its bytes are sent."""

    file: Line = Field(examples=["model.safetensors"], description="Name of the file.")
    size: int = Field(ge=0, le=MAX_BYTES, description="Bytes of the whole file.")
    header: str = Field(description="The JSON text of its header, as it stands in the file.")


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
        max_length=100_000, description="Tensor name -> SHA-256 of its raw bytes."
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
