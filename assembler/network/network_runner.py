"""Measure a network: perplexity, divergence and routing, for the gate and the reports.

Functions of sequences take them as a tensor [n, T] of equal lengths and process them in small
batches.
"""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ReadText:
    """How a network reads text.

    `log_perplexity` is in nats per token. `first_choices` has the share of first choices of each
    routed expert, over all blocks and tokens; it is empty for a network without experts.
    """

    log_perplexity: float
    first_choices: list[float]


@torch.inference_mode()
def read(network: Network, sequences: Tensor) -> ReadText:
    """Read sequences [n, T].

    The first token of each sequence is not predicted and does not count in the log-perplexity, the
    mean negative log-likelihood.
    """
    total, num_experts = 0.0, network.architecture.num_experts
    counts_N = torch.zeros(num_experts, device=network.device)
    for tokens_BT in _batches(network, sequences):
        router_logits: list[Tensor] = []
        kept = router_logits if num_experts else None
        logits_BTV = network(tokens_BT, router_logits=kept)[:, :-1].float()
        next_BT = tokens_BT[:, 1:]
        nll = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="sum")
        total += nll.item()
        for logits_TN in router_logits:
            counts_N += logits_TN.argmax(-1).bincount(minlength=num_experts)
    return ReadText(
        log_perplexity=total / (sequences.shape[0] * (sequences.shape[1] - 1)),
        first_choices=(counts_N / counts_N.sum()).tolist(),
    )


def log_perplexity(network: Network, sequences: Tensor) -> float:
    """Return the log-perplexity of sequences [n, T], see `read`."""
    return read(network, sequences).log_perplexity


def _batches(network: Network, sequences: Tensor) -> Iterator[Tensor]:
    """Yield batches of sequences on the network's device, of about BATCH_TOKENS tokens each."""
    batch_size = max(1, BATCH_TOKENS // sequences.shape[1])
    return iter(torch.split(sequences.to(network.device), batch_size))
