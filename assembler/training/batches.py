"""Turn documents into token windows, for training and for evaluation."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from assembler import tokenizer_file
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog.documents import Document, Split
from registry.checkpoints.file_names import TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput, Problem


class TokenReader:
    """Encodes text with a checkpoint's own tokenizer.

    `start` is what the tokenizer puts before every text: `()` or the begin-of-text token. Networks
    that have seen it before all their training texts read badly without it: Gemma 3 of 270M has a
    perplexity of 191 on Python's manual without it, 21 with it.
    """

    def __init__(self, tokenizer: Tokenizer, *, config: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self.start = tokenizer_file.start(tokenizer, config=config)
        eos = config.get("eos_token_id")
        # Some checkpoints have several end-of-text tokens; the first separates documents.
        self._separator = eos[0] if isinstance(eos, list) else eos

    @classmethod
    def of(cls, manifest: Manifest, blobs: BlobStore) -> Self:
        """Return the reader of a stored checkpoint."""
        file = get_bytes(blobs, manifest.files[TOKENIZER])
        return cls(tokenizer_file.read(file), config=manifest.config)

    def windows(self, documents: Iterable[Document], *, split: Split, length: int) -> Tensor:
        """Join a split's documents by end-of-text and cut them into windows [n, length].

        Each window begins with `start`. The remainder is dropped, so `n` may be 0.
        """
        return cut_windows(self.stream(documents, split=split), length, start=self.start)

    def stream(self, documents: Iterable[Document], *, split: Split) -> list[int]:
        """Return the token ids of a split's documents, joined by end-of-text."""
        texts = [document.text for document in documents if document.split == split]
        stream: list[int] = []
        for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False):
            stream += encoding.ids
            if self._separator is not None:
                stream.append(self._separator)
        return stream

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences [B, T], each of one domain; `labels` [B] are the numbers of the domains' experts.

    `weights` [B] average to 1 and make all domains count equally, however often each is drawn.
    """

    tokens: Tensor
    labels: Tensor
    weights: Tensor

    def shard(self, rank: int, *, num_shards: int, device: torch.device) -> Self:
        """Return every `num_shards`-th sequence, beginning with number `rank`, on `device`."""
        rows = slice(rank, None, num_shards)
        return replace(
            self,
            tokens=self.tokens[rows].to(device),
            labels=self.labels[rows].to(device),
            weights=self.weights[rows].to(device),
        )

    def per_token(self, values: Tensor) -> Tensor:
        """Repeat values [B] of sequences for their tokens [B * T]."""
        return values.repeat_interleave(self.tokens.shape[1])


class DomainBatches:
    """Batches that draw from every domain in turn.

    A domain without documents has None instead of windows, and is never drawn.
    Where some domains are `new` and others not, `new_share` of the sequences come from new domains.
    A batch depends only on `entropy` and its number, so a resumed run needs no state but its step.
    Raises InvalidInput when a domain does not fill one window.
    """

    def __init__(
        self,
        windows: Sequence[Tensor | None],
        *,
        batch_size: int,
        entropy: Sequence[int],
        new: Set[int] = frozenset(),
        new_share: float = 0.5,
    ) -> None:
        problems = tuple(
            Problem(f"/experts/{number}", "its training documents do not fill one sequence")
            for number, domain in enumerate(windows)
            if domain is not None and len(domain) == 0
        )
        if problems:
            raise InvalidInput("too little text to finetune on", problems=problems)
        self._windows = {i: own for i, own in enumerate(windows) if own is not None}
        self._batch_size, self._entropy = batch_size, entropy
        self._new = [domain for domain in self._windows if domain in new]
        self._old = [domain for domain in self._windows if domain not in new]
        self._new_share = new_share if self._new and self._old else float(bool(self._new))

    def batch(self, step: int) -> Batch:
        """Return batch number `step`, counted from 0."""
        numbers = range(step * self._batch_size, (step + 1) * self._batch_size)
        visits = [self._visit(number) for number in numbers]
        rows = [self._window(domain, visit) for domain, visit in visits]
        labels = [domain for domain, _ in visits]
        return Batch(
            tokens=torch.stack(rows),
            labels=torch.tensor(labels),
            weights=torch.tensor([self._weight(domain) for domain in labels]),
        )

    def _visit(self, number: int) -> tuple[int, int]:
        """Return the domain of sequence `number`, and how often that domain was drawn before."""
        num_new = math.floor(number * self._new_share)
        is_new = math.floor((number + 1) * self._new_share) > num_new
        domains, turn = (self._new, num_new) if is_new else (self._old, number - num_new)
        visit, position = divmod(turn, len(domains))
        return domains[position], visit

    def _weight(self, domain: int) -> float:
        """Return the domain's even share divided by its share of the drawn sequences."""
        is_new = domain in self._new
        domains = self._new if is_new else self._old
        share = self._new_share if is_new else 1 - self._new_share
        return len(domains) / (len(self._windows) * share)

    def _window(self, domain: int, visit: int) -> Tensor:
        """Return the window of a domain at its n-th visit; each epoch has its own order."""
        windows = self._windows[domain]
        epoch, position = divmod(visit, len(windows))
        return windows[int(self._order(len(windows), domain, epoch)[position])]

    def _order(self, size: int, domain: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([*self._entropy, domain, epoch]).permutation(size)


def cut_windows(stream: Sequence[int], length: int, *, start: Sequence[int] = ()) -> Tensor:
    """Cut a stream into windows [n, length] that begin with `start`; the remainder is dropped."""
    width = length - len(start)
    num_windows = len(stream) // width
    windows = torch.tensor(stream[: num_windows * width], dtype=torch.int64).view(-1, width)
    return torch.cat([torch.tensor(start, dtype=torch.int64).expand(num_windows, -1), windows], 1)


def sample_windows(windows: Tensor, *, count: int) -> Tensor:
    """Return at most `count` windows [n, T], evenly spread, so that many documents take part."""
    if len(windows) <= count:
        return windows
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()]


def held_out_windows(
    reader: TokenReader, domains: Sequence[Sequence[Document]], *, length: int, count: int
) -> list[Tensor]:
    """Return at most `count` windows [n, length] of the held-out documents of each domain."""
    return [
        sample_windows(reader.windows(documents, split="held-out", length=length), count=count)
        for documents in domains
    ]
