"""Define a family for experiments: a seed, its experts, and texts of domains."""

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
    """A seed and its experts in a store; mappings have the name of the domain as key.

    `documents` are of the experts' domains, `public` of other domains. The projection reads the
    training split of `public`; its held-out split is the general text.
    """

    name: str
    seed: Manifest
    experts: Mapping[str, Manifest]
    documents: Mapping[str, Sequence[Document]]
    public: Mapping[str, Sequence[Document]]


def stored(folder: Path, blobs: LocalBlobs) -> Manifest:
    """Store a Hugging Face folder with one file of weights; return its manifest."""
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
