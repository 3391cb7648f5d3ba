"""Capture router inputs: what the FFN of every block reads, and with it a mix's router.

Letters: L blocks, T tokens of a batch, D hidden, K principal directions of a domain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from assembler.compute_dtype import fastest_on_cpu
from assembler.network.model import Network
from assembler.network.moe import FeedForward
from assembler.routing.embedder import states_shape
from assembler.routing.linear_inputs import LinearInputs
from assembler.training.batches import TokenReader, cut_windows, sample_windows
from assembler.training.optimizer import DTYPES
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document, spread
from registry.checkpoints.manifests import Manifest

BATCH_SIZE = 16
# Text that is encoded for each token that is read: words of a tokenizer are shorter than that.
CHARACTERS_PER_TOKEN = 16
# They keep 0.9999 of the variance of the true directions (SmolLM2, 2,048 tokens).
SUBSPACE_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean [L, D] and covariance [L, D, D] of router inputs, and the number of tokens."""

    mean: Tensor
    covariance: Tensor
    num_tokens: int

    def embedding(self) -> Tensor:
        """Return the domain embedding [L, 1 + K, D]: the mean, then the principal directions.

        The directions with the largest variance are kept, each scaled to the standard deviation
        along it.
        """
        shape = states_shape(*self.mean.shape)
        directions_LKD = _principal_directions(self.covariance, shape[1] - 1)
        embedding = torch.cat([self.mean[:, None], directions_LKD], 1)
        assert embedding.shape == shape
        return embedding


def _principal_directions(covariance_LDD: Tensor, count: int) -> Tensor:
    """Return the `count` directions [L, K, D] of largest variance, the smallest first.

    Subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061, algorithm 4.4) on twice as many
    directions: the time of all directions grows with the cube of the width.
    """
    width = covariance_LDD.shape[-1]
    size = min(2 * count, width)
    test_DK = torch.randn(width, size, generator=torch.Generator().manual_seed(0))
    q_LDK, _ = torch.linalg.qr(covariance_LDD @ test_DK)
    for _ in range(SUBSPACE_STEPS):
        q_LDK, _ = torch.linalg.qr(covariance_LDD @ q_LDK)
    values_LK, axes_LKK = torch.linalg.eigh(q_LDK.mT @ covariance_LDD @ q_LDK)
    directions_LKD: Tensor = (q_LDK @ axes_LKK * values_LK.clamp_min(0).sqrt()[:, None]).mT
    return directions_LKD[:, size - count :]


class RouterInputs:
    """Captures the router inputs of a dense checkpoint while its network reads text."""

    def __init__(self, checkpoint: Manifest, blobs: BlobStore) -> None:
        self._reader = TokenReader.of(checkpoint, blobs)
        self._network = Network.from_manifest(checkpoint, blobs, dtype=DTYPES[fastest_on_cpu()])
        ffns = [module for module in self._network.modules() if isinstance(module, FeedForward)]
        self._captured: list[Tensor] = [torch.empty(0)] * len(ffns)
        for layer, ffn in enumerate(ffns):
            ffn.register_forward_pre_hook(partial(self._capture, layer))

    def watch_linears(self) -> LinearInputs:
        """Return sketches of what the attention and the head read from now on."""
        return LinearInputs(self._network, skip=len(self._reader.start))

    @torch.inference_mode()
    def batches(self, documents: Sequence[Document], *, num_tokens: int) -> Iterator[list[Tensor]]:
        """Yield for each batch one float32 tensor [T, D] per block.

        At most about `num_tokens` tokens are read, spread over all training documents. Documents
        shorter than a window are read whole. The token before every text is read with them, and
        left out: it is alike in all domains.
        """
        start = self._reader.start
        chosen = spread(documents, num_characters=CHARACTERS_PER_TOKEN * num_tokens)
        stream = self._reader.stream(chosen, split="train")
        length = min(WINDOW_TOKENS, len(stream) + len(start))
        windows = sample_windows(
            cut_windows(stream, length, start=start), count=max(1, num_tokens // length)
        )
        for tokens_BT in torch.split(windows, BATCH_SIZE):
            self._network.model(tokens_BT, cache=None, router_logits=None, project_rows=False)
            states = [states_BTD[:, len(start) :] for states_BTD in self._captured]
            yield [states_BTD.flatten(0, 1).float() for states_BTD in states]

    def moments(self, documents: Sequence[Document], *, num_tokens: int) -> Moments:
        """Return the moments of the tokens that `batches` reads; only sums are held in memory."""
        squares_LDD, sums_LD, num_read = torch.zeros(()), torch.zeros(()), 0
        for states in self.batches(documents, num_tokens=num_tokens):
            states_LTD = torch.stack(states)
            squares_LDD = squares_LDD + states_LTD.mT @ states_LTD
            sums_LD = sums_LD + states_LTD.sum(1)
            num_read += states_LTD.shape[1]
        mean_LD = sums_LD / num_read
        outer_LDD = mean_LD[:, :, None] * mean_LD[:, None, :]
        return Moments(
            mean=mean_LD, covariance=squares_LDD / num_read - outer_LDD, num_tokens=num_read
        )

    def _capture(self, layer: int, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Keep the FFN's input (a forward pre-hook)."""
        self._captured[layer] = arguments[0]
