"""Read held-out text with a network: losses, routing, and answers to questions.

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
from tests.benchmarks.claims.families.windows import Windows

BATCH_TOKENS = 1024
CHOICES = 4
CONTINUATION_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Figures by domain.

    `losses` has the loss of each window in nats per token. `hits` has the share of right next-token
    predictions of each window. `routing` has the share of routing decisions for each expert; it is
    empty for a dense network.
    """

    losses: Mapping[str, list[float]]
    hits: Mapping[str, list[float]]
    routing: Mapping[str, list[float]]


@torch.inference_mode()
def read(network: Network, windows: Windows) -> Reading:
    """Read all windows; routing is of all tokens, losses and hits of those that count."""
    losses, hits, routing = {}, {}, {}
    for domain, windows_nT in windows.tokens.items():
        losses[domain], hits[domain], routing[domain] = _windows(network, windows_nT, windows.after)
    return Reading(losses=losses, hits=hits, routing=routing)


@torch.inference_mode()
def answers(network: Network, questions: Tensor) -> list[bool]:
    """Return for each question of [Q, C, T] whether its first choice, the true one, is likeliest.

    All choices have the same length, so sums and means of losses rank alike. The network reads the
    common beginning of the choices once.
    """
    right: list[bool] = []
    for batch_BCT in torch.split(questions, max(1, BATCH_TOKENS // questions.shape[-1])):
        beginnings, ends = (
            batch_BCT[:, 0, :-CONTINUATION_TOKENS],
            batch_BCT[..., -CONTINUATION_TOKENS:],
        )
        cache = Cache()
        first_B1V = network(beginnings, cache=cache)[:, -1:]
        losses = []
        for end_BT in ends.unbind(1):
            others_BTV = network(end_BT[:, :-1], cache=deepcopy(cache))
            losses.append(_loss(torch.cat([first_B1V, others_BTV], 1), end_BT).sum(-1))
        right += (torch.stack(losses, 1).argmin(-1) == 0).tolist()
    return right


def questions_of(windows: Tensor) -> Tensor:
    """Make questions [Q, C, T] from windows [Q, T] of one domain.

    All choices begin like the window. The first choice ends like the window too, the others end
    like other windows. Return no questions when there are fewer windows than choices.
    """
    if len(windows) < CHOICES:
        windows = windows[:0]
    beginnings = windows[:, None, :-CONTINUATION_TOKENS].expand(-1, CHOICES, -1)
    ends = torch.stack(
        [windows.roll(-shift, 0)[:, -CONTINUATION_TOKENS:] for shift in range(CHOICES)], 1
    )
    return torch.cat([beginnings, ends], -1)


def _windows(
    network: Network, windows: Tensor, after: int
) -> tuple[list[float], list[float], list[float]]:
    losses: list[float] = []
    hits: list[float] = []
    counts_N = torch.zeros(network.architecture.num_experts)
    for tokens_BT in torch.split(windows, max(1, BATCH_TOKENS // windows.shape[1])):
        router_logits: list[Tensor] = []
        logits_BTV = network(tokens_BT, router_logits=router_logits)[:, :-1]
        first = max(after - 1, 0)
        read_BTV, next_BT = logits_BTV[:, first:], tokens_BT[:, first + 1 :]
        losses += _loss(read_BTV, next_BT).mean(-1).tolist()
        hits += (read_BTV.argmax(-1) == next_BT).float().mean(-1).tolist()
        for logits_TN in router_logits if len(counts_N) else ():
            counts_N += logits_TN.argmax(-1).bincount(minlength=len(counts_N))
    routing: list[float] = (counts_N / counts_N.sum()).tolist()
    return losses, hits, routing


def _loss(logits_BTV: Tensor, next_BT: Tensor) -> Tensor:
    losses = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="none")
    return losses.view_as(next_BT)
