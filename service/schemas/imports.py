"""Versions of experts that are imported from something else than a checkpoint."""

from typing import Any

from pydantic import Field

from service.schemas.checkpoints import ShardBody
from service.schemas.common import Line, Request, Text


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


class ImportRequest(Request):
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
    adapter: AdapterBody = Field(description="An adapter that is merged into the seed.")
