"""What a claim is measured on: a seed and its experts, and text of their domains and of others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest

WEIGHTS = "model.safetensors"
FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A seed and its experts in a store; mappings are by the name of the domain.

    `documents` are of the experts' domains, `public` of others: the projection reads their training
    split, and the held-out one is general text.
    """

    name: str
    seed: Manifest
    experts: Mapping[str, Manifest]
    documents: Mapping[str, Sequence[Document]]
    public: Mapping[str, Sequence[Document]]


def stored(folder: Path, blobs: LocalBlobs) -> Manifest:
    """A Hugging Face folder with one file of weights, as a checkpoint in the store."""
    return Manifest(
        config=json.loads((folder / "config.json").read_text()),
        tensors={
            name: tensors.write(blobs, tensor)
            for name, tensor in load_file(folder / WEIGHTS).items()
        },
        files={
            name: put_bytes(blobs, (folder / name).read_bytes())
            for name in FILES
            if (folder / name).exists()
        },
    )
