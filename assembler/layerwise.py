"""Texts read from any layer on: what a change in one layer does is known without those below it.

Letters at the end of a tensor's name: B sequences, T tokens, D hidden, S tokens that count, V
vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.attention import rope
from assembler.network import Network
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.torch_runner import BATCH_TOKENS

# What enters every layer, and behind them the norm: L + 1 of [B, T, D].
States = Sequence[Tensor]


class LayerwiseReader:
    """A network that reads the same texts, all of one length, again and again.

    Between two readings its layers may change. With the states of all layers, float32, it is handed
    2.3 kB for each token and layer of a network of width 576; the caller keeps them.
    """

    def __init__(self, network: Network, continuations: Sequence[Continuation]) -> None:
        self._network, self._blocks = network, list(network.model.layers)
        self.continuations = continuations
        self._tokens_BT = torch.tensor([c.prefix + c.tokens for c in continuations])
        self._start = len(continuations[0].prefix)
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
    def read(self, states: States, *, layer: int, rows: slice = slice(None)) -> list[Reading]:
        """What the network says of some of the texts, when nothing below `layer` has changed since
        it gave `states`. One past the last layer is the head."""
        readings: list[Reading] = []
        texts_BT = self._tokens_BT[rows]
        parts = zip(
            torch.split(states[layer][rows], self._batch_size),
            torch.split(texts_BT[:, self._start :], self._batch_size),
            strict=True,
        )
        for x_BTD, next_BS in parts:
            for block in self._blocks[layer:]:
                x_BTD = self._through(block, x_BTD)
            readings += self._said(x_BTD[:, self._start - 1 : -1], next_BS)
        return readings

    def _through(self, block: torch.nn.Module, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = block(x_BTD, self._rotation, cache=None, domain_embeddings=None)[0]
        return out_BTD

    def _said(self, x_BSD: Tensor, next_BS: Tensor) -> list[Reading]:
        logits_BSV = self._network.logits(self._network.model.norm(x_BSD)).float()
        nll = F.cross_entropy(logits_BSV.flatten(0, 1), next_BS.flatten(), reduction="none")
        predicted, logprobs = logits_BSV.argmax(-1).tolist(), (-nll.view_as(next_BS)).tolist()
        return [Reading(tuple(p), tuple(q)) for p, q in zip(predicted, logprobs, strict=True)]
