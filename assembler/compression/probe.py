"""Measure a changed network on text that the checkpoint wrote before, and on held-out text."""

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from assembler.network import network_runner
from assembler.network.model import Network
from assembler.progress import OnMessage
from assembler.training.batches import TokenReader, held_out_windows
from engine.compression.measures import Measures, ProbeSize
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput

# Amount of held-out text whose perplexity stands beside the divergence.
PERPLEXITY_TOKENS = 1024
# A quarter of the windows decides first, and one text gives no percentiles.
MIN_WINDOWS = 4


class Probe:
    """A checkpoint's network in float32, with its greedy continuations of held-out prefixes.

    `documents` holds the documents of each domain; only held-out ones are read. Raises InvalidInput
    for too little text before anything is computed, and InvalidCheckpoint.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        request: ProbeSize,
        *,
        blobs: BlobStore,
        on_progress: OnMessage,
    ) -> None:
        reader = TokenReader.of(manifest, blobs)
        prompts = _take_turns(
            reader, documents, length=request.prefix_tokens, count=request.prompts
        )
        windows = _take_turns(
            reader, documents, length=WINDOW_TOKENS, count=PERPLEXITY_TOKENS // WINDOW_TOKENS
        )
        self.network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
        on_progress("writing the checkpoint's texts")
        self.texts = network_runner.runner(self.network).write(
            list(map(tuple, prompts.tolist())), num_tokens=request.completion_tokens
        )
        self.corpus = [Continuation((first,), tuple(rest)) for first, *rest in windows.tolist()]

    def measure(self) -> Measures:
        """Measure the network as it is now: FDT in tokens, DPPL, perplexity of held-out text."""
        runner = network_runner.runner(self.network)
        written = summarize(self.texts, runner.read(self.texts))
        corpus = summarize(self.corpus, runner.read(self.corpus))
        return Measures(
            fdt_75=written.fdt.p75,
            fdt_mean=written.fdt.mean,
            fdt_mean_interval=written.fdt.interval,
            dppl=written.perplexity,
            perplexity=corpus.perplexity,
        )


def _take_turns(
    reader: TokenReader, documents: Sequence[Sequence[Document]], *, length: int, count: int
) -> Tensor:
    """Return about `count` windows [n, length], equally many of each domain.

    The domains take turns, since a search may read the first few windows only.
    """
    share = -(-count // len(documents))
    turns = zip_longest(*held_out_windows(reader, documents, length=length, count=share))
    windows = [window for turn in turns for window in turn if window is not None]
    if len(windows) < MIN_WINDOWS:
        raise InvalidInput(
            f"the held-out documents fill {len(windows)} windows of {length} tokens, at least"
            f" {MIN_WINDOWS} are needed"
        )
    return torch.stack(windows)
