"""What the gate and the tables need to know of a network: perplexity, greedy text, routing.

Every function takes sequences [n, T] of equal length and works through them in small batches.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.attention import Cache
from assembler.network import Network
from engine.divergence import Continuation, Reading

# Bounds the logits of one pass: 1,024 tokens x 49,152 words in float32 are 200 MB.
BATCH_TOKENS = 1024


@torch.inference_mode()
def log_perplexity(network: Network, sequences: Tensor) -> float:
    """Mean negative log-likelihood, in nats per token, of all tokens but each sequence's first."""
    total = 0.0
    for tokens_BT in _batches(network, sequences):
        total -= _logprobs(network, tokens_BT)[1].sum().item()
    return total / (sequences.shape[0] * (sequences.shape[1] - 1))


@torch.inference_mode()
def greedy_continuations(
    network: Network, prompts: Tensor, *, num_tokens: int
) -> list[Continuation]:
    """The `num_tokens` likeliest tokens, one after the other, behind each prompt [n, T]."""
    continuations: list[Continuation] = []
    for prompts_BT in _batches(network, prompts):
        cache, tokens_BT, chosen = Cache(), prompts_BT, []
        for _ in range(num_tokens):
            tokens_BT = network(tokens_BT, cache=cache)[:, -1:].argmax(-1)
            chosen.append(tokens_BT)
        texts = zip(prompts_BT.tolist(), torch.cat(chosen, 1).tolist(), strict=True)
        continuations += [Continuation(tuple(prefix), tuple(text)) for prefix, text in texts]
    return continuations


@torch.inference_mode()
def teacher_forced(network: Network, continuations: Sequence[Continuation]) -> list[Reading]:
    """What the network says, in one pass, at every token of texts of equal lengths."""
    readings: list[Reading] = []
    start = len(continuations[0].prefix) - 1
    texts = torch.tensor([c.prefix + c.tokens for c in continuations])
    for tokens_BT in _batches(network, texts):
        predicted, logprobs = (x[:, start:].tolist() for x in _logprobs(network, tokens_BT))
        readings += [Reading(tuple(p), tuple(q)) for p, q in zip(predicted, logprobs, strict=True)]
    return readings


@torch.inference_mode()
def routing_shares(network: Network, sequences: Tensor) -> list[float]:
    """Share of routing decisions, over all blocks and tokens, that chose each expert first."""
    counts = torch.zeros(network.architecture.num_experts, device=network.device)
    for tokens_BT in _batches(network, sequences):
        router_logits: list[Tensor] = []
        network(tokens_BT, router_logits=router_logits)
        for logits_TN in router_logits:
            counts += logits_TN.argmax(-1).bincount(minlength=len(counts))
    return (counts / counts.sum()).tolist()


def _logprobs(network: Network, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Argmax, and log-probability of the token that stands there, for all positions but the first.

    Both are [B, T - 1].
    """
    logits_BTV = network(tokens_BT)[:, :-1].float()
    next_BT = tokens_BT[:, 1:]
    nll = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="none")
    return logits_BTV.argmax(-1), -nll.view_as(next_BT)


def _batches(network: Network, sequences: Tensor) -> Iterator[Tensor]:
    batch_size = max(1, BATCH_TOKENS // sequences.shape[1])
    return iter(torch.split(sequences.to(network.device), batch_size))
