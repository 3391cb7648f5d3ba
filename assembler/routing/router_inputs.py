"""Router inputs: what the FFN of every block reads, and with it the router of a mix.

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
from assembler.training.batches import TokenReader, cut_windows, sample_windows
from assembler.training.optimizer import DTYPES
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest

BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean [L, D] and covariance [L, D, D] of router inputs, and of how many tokens they are."""

    mean: Tensor
    covariance: Tensor
    num_tokens: int

    def embedding(self) -> Tensor:
        """As a domain embedding is kept, [L, 1 + K, D]: the mean, and behind it the directions
        along which most of the variance lies, each as long as the standard deviation along it."""
        num_layers, num_rows, width = states_shape(*self.mean.shape)
        values_LD, vectors_LDD = torch.linalg.eigh(self.covariance)
        lengths_LD = values_LD.clamp_min(0).sqrt()
        directions_LDD = (vectors_LDD * lengths_LD[:, None, :]).mT
        embedding = torch.cat([self.mean[:, None], directions_LDD[:, width + 1 - num_rows :]], 1)
        assert embedding.shape == (num_layers, num_rows, width)
        return embedding


class RouterInputs:
    """A dense checkpoint's network, listened to while it reads."""

    def __init__(self, checkpoint: Manifest, blobs: BlobStore) -> None:
        self._reader = TokenReader.of(checkpoint, blobs)
        self._network = Network.from_manifest(checkpoint, blobs, dtype=DTYPES[fastest_on_cpu()])
        ffns = [module for module in self._network.modules() if isinstance(module, FeedForward)]
        self._heard: list[Tensor] = [torch.empty(0)] * len(ffns)
        for layer, ffn in enumerate(ffns):
            ffn.register_forward_pre_hook(partial(self._hear, layer))

    @torch.inference_mode()
    def batches(self, documents: Sequence[Document], *, num_tokens: int) -> Iterator[list[Tensor]]:
        """Batch by batch one float32 [T, D] per block, of at most about `num_tokens` tokens of the
        training documents, spread over all of them; less than a window is read whole."""
        stream = self._reader.stream(documents, split="train")
        length = min(WINDOW_TOKENS, len(stream))
        windows = sample_windows(cut_windows(stream, length), count=max(1, num_tokens // length))
        for tokens_BT in torch.split(windows, BATCH_SIZE):
            self._network.model(tokens_BT, cache=None, router_logits=None, project_rows=False)
            yield [states_BTD.flatten(0, 1).float() for states_BTD in self._heard]

    def moments(self, documents: Sequence[Document], *, num_tokens: int) -> Moments:
        """Of what `batches` reads; only sums are held."""
        squares_LDD, sums_LD, read = torch.zeros(()), torch.zeros(()), 0
        for states in self.batches(documents, num_tokens=num_tokens):
            states_LTD = torch.stack(states)
            squares_LDD = squares_LDD + states_LTD.mT @ states_LTD
            sums_LD = sums_LD + states_LTD.sum(1)
            read += states_LTD.shape[1]
        mean_LD = sums_LD / read
        outer_LDD = mean_LD[:, :, None] * mean_LD[:, None, :]
        return Moments(mean=mean_LD, covariance=squares_LDD / read - outer_LDD, num_tokens=read)

    def _hear(self, layer: int, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._heard[layer] = arguments[0]
