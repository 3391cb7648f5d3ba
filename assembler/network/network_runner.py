"""What the gate and the tables need to know of a network: perplexity, divergence, routing.

Functions of sequences take them as [n, T], of equal length, and work through them in small batches.
"""

from collections.abc import Callable, Iterator, Set
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.network.attention import Cache
from assembler.network.model import Network
from engine.divergence.torch_runner import BATCH_TOKENS, TorchRunner
from registry.blobs import BlobStore
from registry.manifests import Manifest


def runner(
    network: Network, *, ends: Set[int] = frozenset(), batch_tokens: int | None = None
) -> TorchRunner:
    """Compares the network by its divergent tokens; what it writes ends behind one of `ends`."""
    return TorchRunner(
        network,
        last=lambda tokens_BT, count: network(tokens_BT, head=_head(network, count)),
        fresh=lambda: partial(network, cache=Cache(), head=_head(network, 1)),
        ends=ends,
        device=network.device,
        batch_tokens=batch_tokens,
    )


def of_manifest(manifest: Manifest, blobs: BlobStore) -> TorchRunner:
    """The reference network of a stored checkpoint, in float32; what it writes has no end."""
    return runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))


def _head(network: Network, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits of the last positions only."""
    return lambda x_BTD, _: network.logits(x_BTD[:, -count:])


@torch.inference_mode()
def log_perplexity(network: Network, sequences: Tensor) -> float:
    """Mean negative log-likelihood, in nats per token, of all tokens but each sequence's first."""
    total = 0.0
    for tokens_BT in _batches(network, sequences):
        logits_BTV = network(tokens_BT)[:, :-1].float()
        next_BT = tokens_BT[:, 1:]
        nll = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="sum")
        total += nll.item()
    return total / (sequences.shape[0] * (sequences.shape[1] - 1))


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


def _batches(network: Network, sequences: Tensor) -> Iterator[Tensor]:
    batch_size = max(1, BATCH_TOKENS // sequences.shape[1])
    return iter(torch.split(sequences.to(network.device), batch_size))
