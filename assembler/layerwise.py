"""Texts read from any layer on: what a change in one layer does is known without those below it.

Letters at the end of a tensor's name: B sequences, T tokens, D hidden, S tokens that count, V
vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.attention import rope
from assembler.network import Network
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.torch_runner import BATCH_TOKENS

# What enters every layer, and behind them the norm: L + 1 of [B, T, D].
States = Sequence[Tensor]


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
            readings += self._said(x_BTD, rows.tolist())
        return readings

    @torch.inference_mode()
    def read_changes(self, states: States, changes: Sequence[Change]) -> list[list[Reading]]:
        """What the network that gave `states` would say under each of the changes alone.

        They are read together: above its own layer nothing is changed, and one layer computes what
        has come up to it of all of them.
        """
        readings: list[list[Reading]] = [[] for _ in changes]
        for batch in self._batches(changes):
            said = iter(self._together(states, [part for _, part in batch]))
            for number, part in batch:
                readings[number] += [next(said) for _ in part.rows]
        return readings

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

    def _together(self, states: States, changes: Sequence[Change]) -> list[Reading]:
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
        readings = self._said(x_BTD, rows) if rows else []
        for change in changes:
            if change.layer == len(self._blocks):
                with change.applied():
                    readings += self._said(states[-1][change.rows], change.rows)
        return readings

    def _through(self, block: torch.nn.Module, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = block(x_BTD, self._rotation, cache=None, domain_embeddings=None)[0]
        return out_BTD

    def _said(self, x_BTD: Tensor, rows: Sequence[int]) -> list[Reading]:
        next_BS = self._next_BS[rows]
        x_BSD = self._network.model.norm(x_BTD[:, -next_BS.shape[1] :])
        logits_BSV = self._network.logits(x_BSD).float()
        nll = F.cross_entropy(logits_BSV.flatten(0, 1), next_BS.flatten(), reduction="none")
        predicted, logprobs = logits_BSV.argmax(-1).tolist(), (-nll.view_as(next_BS)).tolist()
        return [Reading(tuple(p), tuple(q)) for p, q in zip(predicted, logprobs, strict=True)]
