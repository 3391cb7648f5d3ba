"""Texts read from any layer on: what a change in one layer does is known without those below it.

Letters at the end of a tensor's name: B sequences, T tokens, D hidden, S tokens that count, V
vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from assembler.compression.logit_bounds import LogitBounds
from assembler.network.attention import rope
from assembler.network.int8_linear import Int8Linear
from assembler.network.model import Network
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.torch_runner import BATCH_TOKENS

# Texts are cut to whole 16s of tokens: at other lengths torch's attention on CPUs ends the same
# sums on other last digits, which int8 may round to other whole numbers.
LENGTH_STEP = 16

# What enters every layer, and behind them the norm: L + 1 of [B, T, D].
States = Sequence[Tensor]
R = TypeVar("R")
# From inputs of the head [B, S, D] of texts with these numbers to something of each text.
Tell = Callable[[Tensor, Sequence[int]], list[R]]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What makes one layer compute otherwise while it is `applied`, and the numbers of the texts
    that are to be read so. One past the last layer is the head."""

    layer: int
    applied: Callable[[], AbstractContextManager[None]]
    rows: Sequence[int]


class LayerwiseReader:
    """A network that reads the same texts, all of one length, again and again.

    Between two readings its layers may change. With the states of all layers, float32, it is handed
    2.3 kB for each token and layer of a network of width 576; the caller keeps them.
    """

    def __init__(self, network: Network, continuations: Sequence[Continuation]) -> None:
        self._network, self._blocks = network, list(network.model.layers)
        self.continuations = continuations
        # The last token of a text is said, and never read.
        self._tokens_BT = torch.tensor([c.prefix + c.tokens[:-1] for c in continuations])
        self._next_BS = torch.tensor([c.tokens for c in continuations])
        a, positions_T = network.architecture, torch.arange(self._tokens_BT.shape[1])
        self._rotation = rope(positions_T, head_dim=a.head_dim, theta=a.rope_theta)
        self._batch_size = max(1, BATCH_TOKENS // len(positions_T))

    @torch.inference_mode()
    def states(self) -> States:
        """Of the network as it is now."""
        entering: list[list[Tensor]] = [[] for _ in range(len(self._blocks) + 1)]
        for tokens_BT in torch.split(self._tokens_BT, self._batch_size):
            x_BTD = self._network.model.embed_tokens(tokens_BT)
            for layer, block in enumerate(self._blocks):
                entering[layer].append(x_BTD)
                x_BTD = self._through(block, x_BTD)
            entering[-1].append(x_BTD)
        return [torch.cat(parts) for parts in entering]

    @torch.inference_mode()
    def read(self, states: States, *, layer: int) -> list[Reading]:
        """What the network says of all texts, when nothing below `layer` has changed since it gave
        `states`."""
        readings: list[Reading] = []
        for rows in torch.split(torch.arange(len(self.continuations)), self._batch_size):
            x_BTD = states[layer][rows]
            for block in self._blocks[layer:]:
                x_BTD = self._through(block, x_BTD)
            readings += self._readings(self._head_inputs(x_BTD), rows.tolist())
        return readings

    @torch.inference_mode()
    def read_changes(self, states: States, changes: Sequence[Change]) -> list[list[Reading]]:
        """What the network that gave `states` would say under each of the changes alone.

        They are read together: above its own layer nothing is changed, and one layer computes what
        has come up to it of all of them.
        """
        return self._told(states, changes, self._readings, of_head=self._readings)

    @torch.inference_mode()
    def contenders(self, states: States) -> LogitBounds | None:
        """Of the network as it is now, in float32, which gave `states`; none where its head is in
        int8, and rounds its inputs."""
        network = self._network
        if isinstance(getattr(network, "lm_head", None), Int8Linear):
            return None
        inputs_BSD = self._head_inputs(states[-1])
        return LogitBounds.of(network.logits, network.head_weight_VD, self._next_BS, inputs_BSD)

    @torch.inference_mode()
    def first_divergences(
        self,
        states: States,
        changes: Sequence[Change],
        *,
        contenders: LogitBounds | None,
        expected: Sequence[int],
    ) -> list[list[int]]:
        """The FDT of what `read_changes` would say, in tokens; with the contenders of the same
        states for little more than the work of the layers. A text is read to where it is `expected`
        to diverge, and again, further, where it does not."""
        tell = contenders.first_divergences if contenders else self._first_divergences
        lengths, whole = [self._length(fdt) for fdt in expected], self._next_BS.shape[1]
        found: list[dict[int, int]] = [{} for _ in changes]
        for length in sorted({*lengths, whole}):
            parts = [
                replace(c, rows=[r for r in c.rows if r not in own and lengths[r] <= length])
                for c, own in zip(changes, found, strict=True)
            ]
            told = self._told(states, parts, tell, of_head=self._first_divergences, length=length)
            for part, own, fdts in zip(parts, found, told, strict=True):
                read = zip(part.rows, fdts, strict=True)
                own.update((row, fdt) for row, fdt in read if fdt < length or length == whole)
        return [[own[row] for row in c.rows] for c, own in zip(changes, found, strict=True)]

    def _length(self, fdt: int) -> int:
        """How many tokens of a text are to be said, so that one which diverges there does."""
        num_said = self._next_BS.shape[1]
        unsaid = self._tokens_BT.shape[1] - num_said
        read = math.ceil((unsaid + fdt + 1) / LENGTH_STEP) * LENGTH_STEP
        return min(read - unsaid, num_said)

    def _told(
        self,
        states: States,
        changes: Sequence[Change],
        tell: Tell[R],
        *,
        of_head: Tell[R],
        length: int | None = None,
    ) -> list[list[R]]:
        """What is told of each change and so many tokens of a text, of all if it is not said how
        many; `of_head` where that changes the head."""
        num_said = self._next_BS.shape[1]
        num_read = self._tokens_BT.shape[1] - num_said + (length or num_said)
        states = [x_BTD[:, :num_read] for x_BTD in states]
        told: list[list[R]] = [[] for _ in changes]
        for batch in self._batches(changes):
            own = iter(self._together(states, [part for _, part in batch], tell, of_head))
            for number, part in batch:
                told[number] += [next(own) for _ in part.rows]
        return told

    def _batches(self, changes: Sequence[Change]) -> Iterator[list[tuple[int, Change]]]:
        """Changes with their numbers, lowest layer first, cut where a batch is full."""
        batch, room = list[tuple[int, Change]](), self._batch_size
        for number in sorted(range(len(changes)), key=lambda number: changes[number].layer):
            rows = changes[number].rows
            while rows:
                batch.append((number, replace(changes[number], rows=rows[:room])))
                room, rows = room - len(rows[:room]), rows[room:]
                if room == 0:
                    yield batch
                    batch, room = [], self._batch_size
        if batch:
            yield batch

    def _together(
        self, states: States, changes: Sequence[Change], tell: Tell[R], of_head: Tell[R]
    ) -> list[R]:
        """Of changes that stand by their layers."""
        x_BTD, rows = states[0][:0], list[int]()
        for layer, block in enumerate(self._blocks):
            parts = [self._through(block, x_BTD)] if rows else []
            for change in changes:
                if change.layer == layer:
                    with change.applied():
                        parts.append(self._through(block, states[layer][change.rows]))
                    rows += change.rows
            x_BTD = torch.cat(parts) if parts else x_BTD
        told = tell(self._head_inputs(x_BTD), rows) if rows else []
        for change in changes:
            if change.layer == len(self._blocks):
                with change.applied():
                    told += of_head(self._head_inputs(states[-1][change.rows]), change.rows)
        return told

    def _through(self, block: torch.nn.Module, x_BTD: Tensor) -> Tensor:
        cosines_TC, sines_TC = (own_TC[: x_BTD.shape[1]] for own_TC in self._rotation)
        rotation = cosines_TC, sines_TC
        out_BTD: Tensor = block(x_BTD, rotation, cache=None, domain_embeddings=None)[0]
        return out_BTD

    def _head_inputs(self, x_BTD: Tensor) -> Tensor:
        """[B, S, D], of texts that may end early."""
        num_unsaid = self._tokens_BT.shape[1] - self._next_BS.shape[1]
        x_BSD: Tensor = self._network.model.norm(x_BTD[:, num_unsaid:])
        return x_BSD

    def _readings(self, inputs_BSD: Tensor, rows: Sequence[int]) -> list[Reading]:
        next_BS = self._next_BS[rows]
        logits_BSV = self._network.logits(inputs_BSD).float()
        own_BS = logits_BSV.gather(-1, next_BS[..., None])[..., 0]
        logprobs = (own_BS - logits_BSV.logsumexp(-1)).tolist()
        predicted = logits_BSV.argmax(-1).tolist()
        return [Reading(tuple(p), tuple(q)) for p, q in zip(predicted, logprobs, strict=True)]

    def _first_divergences(self, inputs_BSD: Tensor, rows: Sequence[int]) -> list[int]:
        next_BS = self._next_BS[rows, : inputs_BSD.shape[1]]
        agrees_BS = self._network.logits(inputs_BSD).argmax(-1) == next_BS
        return agrees_BS.cumprod(-1).sum(-1).tolist()
