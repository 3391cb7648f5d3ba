"""Runs comparisons on any torch model: a callable from tokens [B, T] to logits [B, T, V].

Letters at the end of a tensor's name: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set

import torch
from torch import Tensor

from engine.divergence.metrics import Continuation, Reading, Tokens
from registry.errors import InvalidInput, Problem, pointer

# Bounds the logits of one pass: 1,024 tokens x 49,152 words in float32 are 200 MB.
BATCH_TOKENS = 1024
# Bounds what is remembered of texts that are written together, 46 kB a token for SmolLM2-135M. A
# token costs a third of what it costs in batches of five: weights are read once for all of them.
WRITTEN_TOKENS = 8192

Logits = Callable[[Tensor], Tensor]
# Tokens [B, T] and K to the logits [B, K, V] of the last K positions.
LastLogits = Callable[[Tensor, int], Tensor]


class TorchRunner:
    """`logits` reads whole texts. `last` reads them too, and gives only the logits that are wanted:
    those of a prefix are a tenth of SmolLM2-135M's work. `fresh` makes a callable that remembers
    what it was given before and is given only what follows, a key-value cache behind it; without it
    a text is read anew for each token that is written. Written texts end behind a token of `ends`.

    `batch_tokens` bounds what is run together; by itself 1,024, and 8,192 where texts are written
    with a memory.
    """

    def __init__(
        self,
        logits: Logits,
        *,
        last: LastLogits | None = None,
        fresh: Callable[[], Logits] | None = None,
        ends: Set[int] = frozenset(),
        device: torch.device | str = "cpu",
        batch_tokens: int | None = None,
    ) -> None:
        self._last = last or (lambda tokens_BT, count: logits(tokens_BT)[:, -count:])
        self._fresh = fresh or (lambda: _rereading(logits))
        self._ends = ends
        self._device = device
        self._read_tokens = batch_tokens or BATCH_TOKENS
        self._written_tokens = batch_tokens or (WRITTEN_TOKENS if fresh else BATCH_TOKENS)

    @torch.inference_mode()
    def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
        """Raises InvalidInput for an empty prefix, after which a model predicts nothing."""
        check_prefixes(prefixes)
        written: dict[int, Continuation] = {}
        for positions in self._batches([len(p) for p in prefixes], num_new=num_tokens):
            batch = [prefixes[position] for position in positions]
            texts = zip(positions, batch, *self._continue(batch, num_tokens), strict=True)
            for position, prefix, tokens, margins in texts:
                length = self._length(tokens)
                written[position] = Continuation(
                    prefix, tuple(tokens[:length]), tuple(margins[:length])
                )
        return [written[position] for position in range(len(prefixes))]

    @torch.inference_mode()
    def read(self, continuations: Sequence[Continuation]) -> list[Reading]:
        found: dict[int, Reading] = {}
        texts = [c.prefix + c.tokens for c in continuations]
        for positions in self._batches([len(text) for text in texts], num_new=0):
            # What follows its last token changes nothing of a causal model's text, and what follows
            # the last of all need not be predicted.
            longest = max(len(texts[position]) for position in positions)
            padded = [texts[p][:-1] + (0,) * (longest - len(texts[p])) for p in positions]
            batch = torch.tensor(padded, device=self._device)
            first = min(len(continuations[p].prefix) for p in positions) - 1
            logits_BTV = self._last(batch, batch.shape[1] - first)
            for position, logits_TV in zip(positions, logits_BTV, strict=True):
                own = continuations[position]
                start = len(own.prefix) - 1 - first
                found[position] = _reading(logits_TV[start : start + len(own.tokens)], own.tokens)
        return [found[position] for position in range(len(continuations))]

    def _continue(
        self, prefixes: Sequence[Tokens], num_tokens: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and margins behind prefixes of one length, until all of them have ended."""
        step, tokens_BT = self._fresh(), torch.tensor(prefixes, device=self._device)
        ends = torch.tensor(sorted(self._ends), device=self._device)
        ended_B = torch.zeros(len(prefixes), dtype=torch.bool, device=self._device)
        chosen: list[Tensor] = []
        margins: list[Tensor] = []
        while len(chosen) < num_tokens and not ended_B.all():
            logits_BV = step(tokens_BT)[:, -1].float()
            # Of equals torch's argmax is the first too; its topk promises nothing.
            tokens_BT = logits_BV.argmax(-1, keepdim=True)
            first_B, second_B = logits_BV.topk(2).values.unbind(-1)
            chosen.append(tokens_BT[:, 0])
            margins.append(first_B - second_B)
            ended_B |= torch.isin(tokens_BT[:, 0], ends)
        return torch.stack(chosen, 1).tolist(), torch.stack(margins, 1).tolist()

    def _length(self, tokens: Sequence[int]) -> int:
        """Up to the first end of text, itself included."""
        return next((i + 1 for i, token in enumerate(tokens) if token in self._ends), len(tokens))

    def _batches(self, lengths: Sequence[int], *, num_new: int) -> Iterator[list[int]]:
        """Positions of texts to be run together: of one length where tokens are to follow."""
        if num_new == 0:
            longest = max(lengths, default=0)
            yield from _chunks(range(len(lengths)), self._read_tokens // longest)
            return
        for length in dict.fromkeys(lengths):
            own = [position for position, other in enumerate(lengths) if other == length]
            yield from _chunks(own, self._written_tokens // (length + num_new))


def check_prefixes(prefixes: Iterable[Sequence[int]]) -> None:
    """Raises InvalidInput, naming every prefix without a token: nothing predicts the first."""
    problems = tuple(
        Problem(pointer("prefixes", position), "is empty, at least one token is needed")
        for position, prefix in enumerate(prefixes)
        if not prefix
    )
    if problems:
        raise InvalidInput("a prefix must hold a token", problems=problems)


def _reading(logits_TV: Tensor, tokens: Tokens) -> Reading:
    logits_TV = logits_TV.float()
    tokens_T = torch.tensor(tokens, device=logits_TV.device)
    logprobs_T = logits_TV.gather(-1, tokens_T[:, None])[:, 0] - logits_TV.logsumexp(-1)
    return Reading(tuple(logits_TV.argmax(-1).tolist()), tuple(logprobs_T.tolist()))


def _rereading(logits: Logits) -> Logits:
    """As if it remembered: every step reads the whole text."""
    read: list[Tensor] = []

    def step(tokens_BT: Tensor) -> Tensor:
        read.append(tokens_BT)
        return logits(torch.cat(read, 1))

    return step


def _chunks(positions: Sequence[int], size: int) -> Iterator[list[int]]:
    size = max(1, size)
    for start in range(0, len(positions), size):
        yield list(positions[start : start + size])
