"""Measure a network: perplexity, divergence and routing, for the gate and the reports.

Functions of sequences take them as a tensor [n, T] of equal lengths and process them in small
batches.
"""

from collections.abc import Callable, Iterator, Set
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.network.model import Network
from engine.divergence.torch_runner import BATCH_TOKENS, TorchRunner
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest


def runner(
    network: Network, *, stop_token_ids: Set[int] = frozenset(), batch_tokens: int | None = None
) -> TorchRunner:
    """Return the runner that compares the network; its texts end after one of `stop_token_ids`."""
    return TorchRunner(
        network,
        last_logits=lambda tokens_BT, count: network(tokens_BT, head=_head(network, count)),
        new_decoder=lambda: partial(network, cache=network.new_cache(), head=_head(network, 1)),
        stop_token_ids=stop_token_ids,
        device=network.device,
        batch_tokens=batch_tokens,
    )


def of_manifest(manifest: Manifest, blobs: BlobStore) -> TorchRunner:
    """Return the runner of a stored checkpoint, in float32, without stop tokens."""
    return runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))


def _head(network: Network, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a head that computes the logits of the last `count` positions only."""
    return lambda x_BTD, _: network.logits(x_BTD[:, -count:])


@torch.inference_mode()
def log_perplexity(network: Network, sequences: Tensor) -> float:
    """Return the mean negative log-likelihood, in nats per token, of sequences [n, T].

    The first token of each sequence is not predicted and does not count.
    """
    total = 0.0
    for tokens_BT in _batches(network, sequences):
        logits_BTV = network(tokens_BT)[:, :-1].float()
        next_BT = tokens_BT[:, 1:]
        nll = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="sum")
        total += nll.item()
    return total / (sequences.shape[0] * (sequences.shape[1] - 1))


@torch.inference_mode()
def routing_shares(network: Network, sequences: Tensor) -> list[float]:
    """Return each expert's share of first choices, over all blocks and tokens."""
    counts = torch.zeros(network.architecture.num_experts, device=network.device)
    for tokens_BT in _batches(network, sequences):
        router_logits: list[Tensor] = []
        network(tokens_BT, router_logits=router_logits)
        for logits_TN in router_logits:
            counts += logits_TN.argmax(-1).bincount(minlength=len(counts))
    return (counts / counts.sum()).tolist()


def _batches(network: Network, sequences: Tensor) -> Iterator[Tensor]:
    """Yield batches of sequences on the network's device, of about BATCH_TOKENS tokens each."""
    batch_size = max(1, BATCH_TOKENS // sequences.shape[1])
    return iter(torch.split(sequences.to(network.device), batch_size))
