"""General text: held-out documents of no expert's domain, on which a mix should not lose.

They are those of the family's projection, which every family with Nexus routers has in its store.
So a gate downloads nothing, and the projection has learned from others of the same sources.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from assembler.recipes.recipe import Recipe
from assembler.training.batches import TokenReader, held_out_windows, sample_windows
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import BlobStore
from registry.catalog import documents, projections
from registry.catalog.documents import Document
from registry.errors import Conflict


@dataclass(frozen=True, kw_only=True)
class GeneralText:
    """Held-out documents, and the digest of the blob that holds them."""

    digest: str
    documents: Sequence[Document]

    def windows(
        self, reader: TokenReader, *, num_tokens: int, length: int = WINDOW_TOKENS
    ) -> Tensor | None:
        """Return windows [n, length] of about `num_tokens` tokens, as many of each source.

        None if no source fills a window.
        """
        ordered = sorted(self.documents, key=_source)
        sources = [list(own) for _, own in groupby(ordered, key=_source)]
        count = max(1, num_tokens // length)
        share = -(-count // len(sources))
        windows = torch.cat(held_out_windows(reader, sources, length=length, count=share))
        return sample_windows(windows, count=count) if len(windows) else None


def _source(document: Document) -> str:
    return document.domain or ""


def find_digest(session: Session, recipe: Recipe) -> str | None:
    """Return the digest of the documents of the recipe's projection, else of the family's newest.

    None where the family has no projection that is ready. Documents of experts that a projection
    has learned from are all training documents, so none of them is general text.
    """
    return find_family_digest(session, recipe.projection or recipe.family)


def find_family_digest(session: Session, projection: str) -> str | None:
    """Return the digest of the documents of a projection, or of the newest of a family by name."""
    with suppress(Conflict):
        return projections.pin(session, projection).documents_digest
    return None


def read(digest: str | None, blobs: BlobStore) -> GeneralText | None:
    """Read the held-out documents of a blob; None where there are none."""
    if digest is None:
        return None
    held_out = [d for d in documents.parse(blobs.read(digest)) if d.split == "held-out"]
    return GeneralText(digest=digest, documents=held_out) if held_out else None
