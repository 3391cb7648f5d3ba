"""Read texts from any layer on, so that a change in one layer does not recompute those below.

Suffixes of tensor names: B sequences, T tokens, D hidden, S scored tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from assembler.compression.logit_bounds import LogitBounds
from assembler.network.int8_linear import Int8Linear
from assembler.network.model import Network
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.torch_runner import BATCH_TOKENS

# Texts are cut to multiples of 16 tokens. At other lengths torch's attention on CPUs changes the
# last digits of the same sums, and int8 may then round to other integers.
LENGTH_STEP = 16

# Inputs of every layer, and of the final norm: L + 1 tensors [B, T, D].
States = Sequence[Tensor]
R = TypeVar("R")
# Maps head inputs [B, S, D] of the texts with these indices to one result for each text.
Evaluate = Callable[[Tensor, Sequence[int]], list[R]]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A temporary change of one layer, and the indices of the texts to read under it.

    `applied` is a context manager that makes the change. A `layer` one past the last is the head.
    """

    layer: int
    applied: Callable[[], AbstractContextManager[None]]
    rows: Sequence[int]


class LayerwiseReader:
    """Reads the same texts, all of one length, again and again by one network.

    The layers of the network may change between two readings. The caller keeps the states of all
    layers: in float32, 2.3 kB for each token and layer of a network of width 576.
    """

    def __init__(self, network: Network, continuations: Sequence[Continuation]) -> None:
        self._network, self._num_blocks = network, len(network.model.layers)
        self.continuations = continuations
        # The last token of a text is predicted, and never an input.
        self._tokens_BT = torch.tensor([c.prefix + c.tokens[:-1] for c in continuations])
        self._next_BS = torch.tensor([c.tokens for c in continuations])
        self._batch_size = max(1, BATCH_TOKENS // self._tokens_BT.shape[1])

    @torch.inference_mode()
    def states(self) -> States:
        """Return the inputs of all layers of the network as it is now."""
        batches = torch.split(self._tokens_BT, self._batch_size)
        entering = [self._network.model.block_inputs(tokens_BT) for tokens_BT in batches]
        return [torch.cat(parts) for parts in zip(*entering, strict=True)]

    @torch.inference_mode()
    def read(self, states: States, *, layer: int) -> list[Reading]:
        """Read all texts from `layer` on. Layers below must be those that gave `states`."""
        readings: list[Reading] = []
        for rows in torch.split(torch.arange(len(self.continuations)), self._batch_size):
            x_BTD = states[layer][rows]
            for number in range(layer, self._num_blocks):
                x_BTD = self._network.model.through_block(number, x_BTD)
            readings += self._readings(self._head_inputs(x_BTD), rows.tolist())
        return readings

    @torch.inference_mode()
    def read_changes(self, states: States, changes: Sequence[Change]) -> list[list[Reading]]:
        """Read the texts under each change alone, by the network that gave `states`.

        All changes share the layers above them, which no change touches: each layer computes one
        batch with the rows of all changes below it.
        """
        return self._evaluate(states, changes, self._readings, of_head=self._readings)

    @torch.inference_mode()
    def logit_bounds(self, states: States) -> LogitBounds | None:
        """Return bounds around the head inputs of the float32 network that gave `states`.

        None for an int8 head: it rounds its inputs, so the bounds do not hold. None too for logits
        that are more than a product with the head.
        """
        network = self._network
        a = network.architecture
        if a.logit_divisor != 1 or a.logit_soft_cap is not None:
            return None
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
        bounds: LogitBounds | None,
        expected: Sequence[int],
    ) -> list[list[int]]:
        """Return the FDT, in tokens, of each text under each change.

        `read_changes` gives the same FDT. With `bounds` of the same states the head costs little.
        Each text is first read up to its `expected` FDT, and whole where it does not diverge there.
        """
        evaluate = bounds.first_divergences if bounds else self._first_divergences
        lengths, whole = [self._length(fdt) for fdt in expected], self._next_BS.shape[1]
        known: list[dict[int, int]] = [{} for _ in changes]
        for length in sorted({*lengths, whole}):
            parts = [
                replace(c, rows=[r for r in c.rows if r not in fdts and lengths[r] <= length])
                for c, fdts in zip(changes, known, strict=True)
            ]
            read = self._evaluate(
                states, parts, evaluate, of_head=self._first_divergences, length=length
            )
            for part, fdts, new in zip(parts, known, read, strict=True):
                by_row = zip(part.rows, new, strict=True)
                fdts.update((row, fdt) for row, fdt in by_row if fdt < length or length == whole)
        return [[fdts[row] for row in c.rows] for c, fdts in zip(changes, known, strict=True)]

    def _length(self, fdt: int) -> int:
        """Return how many tokens to score so that a divergence after `fdt` tokens is seen."""
        num_scored = self._next_BS.shape[1]
        num_unscored = self._tokens_BT.shape[1] - num_scored
        num_read = math.ceil((num_unscored + fdt + 1) / LENGTH_STEP) * LENGTH_STEP
        return min(num_read - num_unscored, num_scored)

    def _evaluate(
        self,
        states: States,
        changes: Sequence[Change],
        evaluate: Evaluate[R],
        *,
        of_head: Evaluate[R],
        length: int | None = None,
    ) -> list[list[R]]:
        """Evaluate the head inputs of each change over `length` scored tokens, all if not given.

        `of_head` takes the place of `evaluate` for a change of the head itself.
        """
        num_scored = self._next_BS.shape[1]
        num_read = self._tokens_BT.shape[1] - num_scored + (length or num_scored)
        states = [x_BTD[:, :num_read] for x_BTD in states]
        results: list[list[R]] = [[] for _ in changes]
        for batch in self._batches(changes):
            parts = [part for _, part in batch]
            of_batch = iter(self._evaluate_batch(states, parts, evaluate, of_head))
            for number, part in batch:
                results[number] += [next(of_batch) for _ in part.rows]
        return results

    def _batches(self, changes: Sequence[Change]) -> Iterator[list[tuple[int, Change]]]:
        """Yield batches of (index, change), lowest layer first; a change may span batches."""
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

    def _evaluate_batch(
        self,
        states: States,
        changes: Sequence[Change],
        evaluate: Evaluate[R],
        of_head: Evaluate[R],
    ) -> list[R]:
        """Evaluate one batch of changes, which must be sorted by layer."""
        x_BTD, rows = states[0][:0], list[int]()
        through_block = self._network.model.through_block
        for layer in range(self._num_blocks):
            parts = [through_block(layer, x_BTD)] if rows else []
            for change in changes:
                if change.layer == layer:
                    with change.applied():
                        parts.append(through_block(layer, states[layer][change.rows]))
                    rows += change.rows
            x_BTD = torch.cat(parts) if parts else x_BTD
        results = evaluate(self._head_inputs(x_BTD), rows) if rows else []
        for change in changes:
            if change.layer == self._num_blocks:
                with change.applied():
                    results += of_head(self._head_inputs(states[-1][change.rows]), change.rows)
        return results

    def _head_inputs(self, x_BTD: Tensor) -> Tensor:
        """Return the normed states [B, S, D] of the scored positions; texts may be cut early."""
        num_unscored = self._tokens_BT.shape[1] - self._next_BS.shape[1]
        x_BSD: Tensor = self._network.model.norm(x_BTD[:, num_unscored:])
        return x_BSD

    def _readings(self, inputs_BSD: Tensor, rows: Sequence[int]) -> list[Reading]:
        next_BS = self._next_BS[rows]
        logits_BSV = self._network.logits(inputs_BSD).float()
        next_logits_BS = logits_BSV.gather(-1, next_BS[..., None])[..., 0]
        logprobs = (next_logits_BS - logits_BSV.logsumexp(-1)).tolist()
        predicted = logits_BSV.argmax(-1).tolist()
        return [Reading(tuple(p), tuple(q)) for p, q in zip(predicted, logprobs, strict=True)]

    def _first_divergences(self, inputs_BSD: Tensor, rows: Sequence[int]) -> list[int]:
        next_BS = self._next_BS[rows, : inputs_BSD.shape[1]]
        agrees_BS = self._network.logits(inputs_BSD).argmax(-1) == next_BS
        return agrees_BS.cumprod(-1).sum(-1).tolist()
