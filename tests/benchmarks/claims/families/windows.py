"""The windows of held-out text that all networks of a family read.

Letters at the end of a tensor's name: n windows, T tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assembler.training.batches import TokenReader, sample_windows
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document
from tests.benchmarks.claims.families.family import Family

# The name of held-out text of domains without an expert.
GENERAL = "general"


@dataclass(frozen=True)
class Windows:
    """Windows [n, T] of each domain and of GENERAL, as many of each.

    So a mean over domains can be taken window by window. Tokens before position `after` are read,
    but do not count.
    """

    tokens: Mapping[str, Tensor]
    after: int = 0

    @classmethod
    def of(
        cls, family: Family, blobs: LocalBlobs, *, count: int, length: int = WINDOW_TOKENS
    ) -> "Windows":
        """Return at most `count` windows of `length` tokens of each domain."""
        reader = TokenReader.of(family.seed, blobs)
        texts = {name: [domain] for name, domain in family.documents.items()}
        texts[GENERAL] = list(family.public.values())
        found = {name: _held_out(reader, parts, count, length) for name, parts in texts.items()}
        least = min(map(len, found.values()))
        return cls({name: sample_windows(each, count=least) for name, each in found.items()})

    def switched(self) -> "Windows":
        """Return windows whose first half is of the domain before; only the second half counts."""
        names = list(self.tokens)
        length = self.tokens[GENERAL].shape[1]
        mixed = {
            name: torch.cat(
                [self.tokens[before][:, : length // 2], self.tokens[name][:, length // 2 :]], 1
            )
            for before, name in zip(names[-1:] + names[:-1], names, strict=True)
        }
        return Windows(mixed, after=length // 2)

    @property
    def count(self) -> int:
        """The number of windows of each domain."""
        return len(self.tokens[GENERAL])

    @property
    def key(self) -> list[Any]:
        """What a cache knows them by."""
        listed = {name: tokens_nT.tolist() for name, tokens_nT in self.tokens.items()}
        return [listed, self.after] if self.after else [listed]


def _held_out(
    reader: TokenReader, texts: Sequence[Sequence[Document]], count: int, length: int
) -> Tensor:
    """Return windows [n, length] of held-out documents, about the same number of each text."""
    parts = [reader.windows(domain, split="held-out", length=length) for domain in texts]
    share = math.ceil(count / len(parts))
    return sample_windows(
        torch.cat([sample_windows(part, count=share) for part in parts]), count=count
    )
