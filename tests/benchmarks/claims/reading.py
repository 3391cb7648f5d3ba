"""What a network makes of held-out text: next tokens, where tokens are routed, true continuations.

Letters at the end of a tensor's name: B batch, T tokens, V vocabulary, N routed experts, Q
questions, C choices.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.network.attention import Cache
from assembler.network.model import Network

BATCH_TOKENS = 1024
CHOICES = 4
CONTINUATION_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Reading:
    """By domain: `losses`, of each window in nats per token; `hits`, the share of its next tokens
    that were predicted; `routing`, the share of routing decisions that chose each expert, empty of
    a dense network."""

    losses: Mapping[str, list[float]]
    hits: Mapping[str, list[float]]
    routing: Mapping[str, list[float]]


@torch.inference_mode()
def read(network: Network, windows: Mapping[str, Tensor]) -> Reading:
    """Windows [n, T] of each domain."""
    losses, hits, routing = {}, {}, {}
    for domain, own in windows.items():
        losses[domain], hits[domain], routing[domain] = _windows(network, own)
    return Reading(losses=losses, hits=hits, routing=routing)


@torch.inference_mode()
def answers(network: Network, questions: Tensor) -> list[bool]:
    """Whether the first choice, the true one, of questions [Q, C, T] is the likeliest.

    All choices have the same length, so that the likeliest is the likeliest per token too. What
    they have in common is read once.
    """
    right: list[bool] = []
    for own in torch.split(questions, max(1, BATCH_TOKENS // questions.shape[-1])):
        beginnings, ends = own[:, 0, :-CONTINUATION_TOKENS], own[..., -CONTINUATION_TOKENS:]
        cache = Cache()
        first_B1V = network(beginnings, cache=cache)[:, -1:]
        losses = []
        for end_BT in ends.unbind(1):
            others_BTV = network(end_BT[:, :-1], cache=deepcopy(cache))
            losses.append(_loss(torch.cat([first_B1V, others_BTV], 1), end_BT).sum(-1))
        right += (torch.stack(losses, 1).argmin(-1) == 0).tolist()
    return right


def questions_of(windows: Tensor) -> Tensor:
    """Questions [Q, C, T] of windows [Q, T]: each begins as its window does, and ends as the window
    itself (first), or as another of the same domain; none where there are too few of those."""
    if len(windows) < CHOICES:
        windows = windows[:0]
    beginnings = windows[:, None, :-CONTINUATION_TOKENS].expand(-1, CHOICES, -1)
    ends = torch.stack(
        [windows.roll(-shift, 0)[:, -CONTINUATION_TOKENS:] for shift in range(CHOICES)], 1
    )
    return torch.cat([beginnings, ends], -1)


def _windows(network: Network, windows: Tensor) -> tuple[list[float], list[float], list[float]]:
    losses: list[float] = []
    hits: list[float] = []
    counts_N = torch.zeros(network.architecture.num_experts)
    for tokens_BT in torch.split(windows, max(1, BATCH_TOKENS // windows.shape[1])):
        router_logits: list[Tensor] = []
        logits_BTV = network(tokens_BT, router_logits=router_logits)[:, :-1]
        losses += _loss(logits_BTV, tokens_BT[:, 1:]).mean(-1).tolist()
        hits += (logits_BTV.argmax(-1) == tokens_BT[:, 1:]).float().mean(-1).tolist()
        for logits_TN in router_logits if len(counts_N) else ():
            counts_N += logits_TN.argmax(-1).bincount(minlength=len(counts_N))
    routing: list[float] = (counts_N / counts_N.sum()).tolist()
    return losses, hits, routing


def _loss(logits_BTV: Tensor, next_BT: Tensor) -> Tensor:
    losses = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="none")
    return losses.view_as(next_BT)
