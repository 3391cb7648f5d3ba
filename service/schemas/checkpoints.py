"""Sending and downloading checkpoints."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.schemas.common import Request


class ShardBody(Request):
    """A safetensors file, announced before its bytes are sent."""

    file: str = Field(examples=["model.safetensors"])
    size: int = Field(ge=0, description="Bytes of the whole file.")
    header: str = Field(description="The JSON text of its header, as it stands in the file.")


class CheckpointRequest(Request):
    """A checkpoint, announced by its headers; the answer says which bytes to send."""

    license: str = Field(min_length=1, max_length=100, examples=["Apache-2.0"])
    description: str = Field(default="", max_length=10_000)
    config: dict[str, Any] = Field(description="config.json")
    files: dict[str, str] = Field(description="File name -> SHA-256: tokenizer.json and the like.")
    shards: list[ShardBody] = Field(min_length=1)
    digests: dict[str, str] = Field(description="Tensor name -> SHA-256 of its raw bytes.")


class MissingBlob(BaseModel):
    """A blob to send: PUT its bytes to `url`, which may be relative, with `headers`."""

    digest: str
    size: int | None = Field(description="Bytes of a tensor; null for a file.")
    url: str
    headers: dict[str, str] = {}


class FileBody(BaseModel):
    """A file that can be downloaded."""

    name: str
    size: int


class FilesBody(BaseModel):
    """The files of a checkpoint."""

    object: Literal["list"] = "list"
    manifest_digest: str = Field(description="SHA-256 that stands for the whole checkpoint.")
    attestation_digest: str | None = Field(
        description="SHA-256 of the signed statement about a published mix; null without one."
    )
    data: list[FileBody]


class SigningKeyBody(BaseModel):
    """The public key that verifies the signatures of this service."""

    object: Literal["signing_key"] = "signing_key"
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(description="32 bytes in hexadecimal.")
