"""Versions of experts that are imported from something else than a checkpoint."""

from typing import Any

from pydantic import Field

from service.schemas.checkpoints import MAX_BYTES, DocumentsWish, OriginBody, ShardBody
from service.schemas.common import Address, Line, Request, Text


class AdapterBody(Request):
    """A LoRA or DoRA adapter as peft saves it, announced before its bytes are sent."""

    config: dict[str, Any] = Field(description="adapter_config.json")
    weights: ShardBody = Field(description="adapter_model.safetensors")
    digest: Line = Field(description="SHA-256 of that file.")
    files: dict[Line, Line] = Field(
        default={},
        max_length=1000,
        description="File name -> SHA-256 of files that replace the seed's, such as a chat"
        " template.",
    )


class GgufTensorBody(Request):
    """A tensor of a GGUF file."""

    type: Line = Field(examples=["Q4_K"], description="Name of its type of numbers.")
    shape: list[int] = Field(max_length=4, description="Its shape, the slowest dimension first.")


class GgufBody(Request):
    """A GGUF file of llama.cpp, announced before its bytes are sent."""

    file: Line = Field(description="Name of the file.")
    size: int = Field(ge=0, le=MAX_BYTES, description="Bytes of the file.")
    digest: Line = Field(description="SHA-256 of the file.")
    metadata: dict[Line, str | int | float | bool] = Field(
        max_length=10_000, description="Metadata of its header by key; lists may be left out."
    )
    tensors: dict[Line, GgufTensorBody] = Field(
        max_length=100_000, description="Tensors of its header by name."
    )


class ImportRequest(DocumentsWish):
    """A new version of an expert that a worker makes from what is sent."""

    family: Line = Field(description="Name of the family whose seed it was trained on.")
    license: Line = Field(
        min_length=1,
        max_length=100,
        examples=["Apache-2.0"],
        description="License, as an SPDX expression.",
    )
    description: Text = Field(
        default="", max_length=10_000, description="What the model is, for readers."
    )
    documents: Line = Field(description="SHA-256 of the sample documents, JSON Lines.")
    adapter: AdapterBody | None = Field(
        default=None, description="An adapter that is merged into the seed."
    )
    gguf: GgufBody | None = Field(default=None, description="A GGUF file that is dequantized.")
    address: Address | None = Field(
        default=None,
        alias="from",
        examples=["hf:owner/name@main"],
        description="What a worker fetches: a repository of the Hugging Face Hub, or the address of"
        " a GGUF file. Give one of adapter, gguf and from.",
    )
    origin: OriginBody | None = Field(
        default=None,
        description="Where the sender has fetched the adapter or the file; null otherwise.",
    )
