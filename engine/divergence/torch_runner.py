"""Compare any torch model: a callable from tokens [B, T] to logits [B, T, V].

Letters at the end of a tensor's name: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence, Set

import torch
from torch import Tensor

from engine.divergence.metrics import Continuation, Reading, Tokens

# Bounds the logits of one pass: 1,024 tokens with a vocabulary of 49,152 in float32 take 200 MB.
BATCH_TOKENS = 1024
# Bounds the key-value cache of texts written together, 46 kB per token for SmolLM2-135M. A token
# then costs a third of its cost in batches of five, because weights are read once for all texts.
WRITE_TOKENS = 8192

Logits = Callable[[Tensor], Tensor]
# Tokens [B, T] and K to the logits [B, K, V] of the last K positions.
LastLogits = Callable[[Tensor, int], Tensor]


class TorchRunner:
    """Runs comparisons on a torch model.

    `logits` maps tokens to the logits of all positions. `last_logits` maps tokens and a count to
    the logits of the last positions only; computing all logits of a prefix is a tenth of
    SmolLM2-135M's work. `new_decoder` returns a callable with its own key-value cache: each call
    takes the tokens that follow those of the last call. Without it, the whole text is read again
    for each written token. Written texts end after a token of `stop_token_ids`.

    `batch_tokens` bounds the tokens that run together. The default is 1,024, or 8,192 when writing
    with a cache.
    """

    def __init__(
        self,
        logits: Logits,
        *,
        last_logits: LastLogits | None = None,
        new_decoder: Callable[[], Logits] | None = None,
        stop_token_ids: Set[int] = frozenset(),
        device: torch.device | str = "cpu",
        batch_tokens: int | None = None,
    ) -> None:
        self._last_logits = last_logits or (lambda tokens_BT, count: logits(tokens_BT)[:, -count:])
        self._new_decoder = new_decoder or (lambda: _uncached_decoder(logits))
        self._stop_token_ids = stop_token_ids
        self._device = device
        self._read_tokens = batch_tokens or BATCH_TOKENS
        self._write_tokens = batch_tokens or (WRITE_TOKENS if new_decoder else BATCH_TOKENS)

    @torch.inference_mode()
    def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
        """Continue each prefix greedily. Raises ValueError for an empty prefix."""
        _check(prefixes)
        continuations: dict[int, Continuation] = {}
        for positions in self._batches([len(p) for p in prefixes], num_new=num_tokens):
            batch = [prefixes[position] for position in positions]
            texts = zip(positions, batch, *self._continue(batch, num_tokens), strict=True)
            for position, prefix, tokens, margins in texts:
                length = self._length(tokens)
                continuations[position] = Continuation(
                    prefix, tuple(tokens[:length]), tuple(margins[:length])
                )
        return [continuations[position] for position in range(len(prefixes))]

    @torch.inference_mode()
    def read(self, continuations: Sequence[Continuation]) -> list[Reading]:
        """Return the predictions at every token of each continuation."""
        readings: dict[int, Reading] = {}
        texts = [c.prefix + c.tokens for c in continuations]
        for positions in self._batches([len(text) for text in texts], num_new=0):
            # Padding after a text's last token changes nothing in a causal model. The logits after
            # the last token are not needed, so that token is dropped.
            longest = max(len(texts[position]) for position in positions)
            padded = [texts[p][:-1] + (0,) * (longest - len(texts[p])) for p in positions]
            batch = torch.tensor(padded, device=self._device)
            first = min(len(continuations[p].prefix) for p in positions) - 1
            logits_BTV = self._last_logits(batch, batch.shape[1] - first)
            for position, logits_TV in zip(positions, logits_BTV, strict=True):
                continuation = continuations[position]
                start = len(continuation.prefix) - 1 - first
                readings[position] = _reading(
                    logits_TV[start : start + len(continuation.tokens)], continuation.tokens
                )
        return [readings[position] for position in range(len(continuations))]

    def _continue(
        self, prefixes: Sequence[Tokens], num_tokens: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return tokens and margins after prefixes of one length, until all texts have ended."""
        decode, tokens_BT = self._new_decoder(), torch.tensor(prefixes, device=self._device)
        ends = torch.tensor(sorted(self._stop_token_ids), device=self._device)
        ended_B = torch.zeros(len(prefixes), dtype=torch.bool, device=self._device)
        chosen: list[Tensor] = []
        margins: list[Tensor] = []
        while len(chosen) < num_tokens and not ended_B.all():
            logits_BV = decode(tokens_BT)[:, -1].float()
            # torch's argmax returns the first of equals, which is our rule for ties; topk does not
            # promise it.
            tokens_BT = logits_BV.argmax(-1, keepdim=True)
            first_B, second_B = logits_BV.topk(2).values.unbind(-1)
            chosen.append(tokens_BT[:, 0])
            margins.append(first_B - second_B)
            ended_B |= torch.isin(tokens_BT[:, 0], ends)
        return torch.stack(chosen, 1).tolist(), torch.stack(margins, 1).tolist()

    def _length(self, tokens: Sequence[int]) -> int:
        """Return the length up to and including the first stop token."""
        return next(
            (i + 1 for i, token in enumerate(tokens) if token in self._stop_token_ids), len(tokens)
        )

    def _batches(self, lengths: Sequence[int], *, num_new: int) -> Iterator[list[int]]:
        """Yield positions of texts to run together, of equal length when writing."""
        if num_new == 0:
            longest = max(lengths, default=0)
            yield from _chunks(range(len(lengths)), self._read_tokens // longest)
            return
        for length in dict.fromkeys(lengths):
            positions = [position for position, other in enumerate(lengths) if other == length]
            yield from _chunks(positions, self._write_tokens // (length + num_new))


def _check(prefixes: Sequence[Tokens]) -> None:
    empty = [str(position) for position, prefix in enumerate(prefixes) if not prefix]
    if empty:
        raise ValueError(f"prefixes without a token, which predict nothing: {', '.join(empty)}")


def _reading(logits_TV: Tensor, tokens: Tokens) -> Reading:
    """Return the reading of `tokens` from the logits [T, V] that predict them."""
    logits_TV = logits_TV.float()
    tokens_T = torch.tensor(tokens, device=logits_TV.device)
    logprobs_T = logits_TV.gather(-1, tokens_T[:, None])[:, 0] - logits_TV.logsumexp(-1)
    return Reading(tuple(logits_TV.argmax(-1).tolist()), tuple(logprobs_T.tolist()))


def _uncached_decoder(logits: Logits) -> Logits:
    """Return a decoder without a cache: every step reads the whole text again."""
    tokens: list[Tensor] = []

    def step(tokens_BT: Tensor) -> Tensor:
        tokens.append(tokens_BT)
        return logits(torch.cat(tokens, 1))

    return step


def _chunks(positions: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield `positions` in chunks of at most `size`, at least one."""
    size = max(1, size)
    for start in range(0, len(positions), size):
        yield list(positions[start : start + size])
