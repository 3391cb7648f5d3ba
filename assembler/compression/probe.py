"""What a changed checkpoint is held against: texts that it wrote itself, and held-out ones."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from assembler.network import network_runner
from assembler.network.model import Network
from assembler.training.batches import TokenReader, sample_windows
from engine.compression.measures import Measures, ProbeSize
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import InvalidInput
from registry.manifests import Manifest

# Of held-out text, whose perplexity is told beside divergence.
PERPLEXITY_TOKENS = 1024
# A quarter of them decides first, and one text says nothing about percentiles.
MIN_WINDOWS = 4


class Probe:
    """A checkpoint's network in float32, with the greedy text that it adds to held-out prefixes.

    `documents` are those of each domain; held-out ones count. Raises InvalidInput for too little
    text, before anything is computed, and InvalidCheckpoint.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        request: ProbeSize,
        *,
        blobs: BlobStore,
        on_progress: Callable[[str], None],
    ) -> None:
        reader = TokenReader.of(manifest, blobs)
        prompts = _held_out(reader, documents, length=request.prefix_tokens, count=request.prompts)
        windows = _held_out(
            reader, documents, length=WINDOW_TOKENS, count=PERPLEXITY_TOKENS // WINDOW_TOKENS
        )
        self.network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
        on_progress("the checkpoint writes its texts")
        self.texts = network_runner.runner(self.network).write(
            list(map(tuple, prompts.tolist())), num_tokens=request.completion_tokens
        )
        self.corpus = [Continuation((first,), tuple(rest)) for first, *rest in windows.tolist()]

    def measure(self) -> Measures:
        """Of the network as it is now."""
        runner = network_runner.runner(self.network)
        own = summarize(self.texts, runner.read(self.texts))
        corpus = summarize(self.corpus, runner.read(self.corpus))
        return Measures(
            fdt_75=own.fdt.p75,
            fdt_mean=own.fdt.mean,
            fdt_mean_interval=own.fdt.interval,
            dppl=own.perplexity,
            perplexity=corpus.perplexity,
        )


def _held_out(
    reader: TokenReader, documents: Sequence[Sequence[Document]], *, length: int, count: int
) -> Tensor:
    """About `count` windows [n, length], as many of each domain, the domains taking turns: a search
    may look at the first few only."""
    share = -(-count // len(documents))
    domains = [
        sample_windows(reader.windows(own, split="held-out", length=length), count=share)
        for own in documents
    ]
    turns = zip_longest(*domains)
    windows = [window for turn in turns for window in turn if window is not None]
    if len(windows) < MIN_WINDOWS:
        raise InvalidInput(
            f"the held-out documents fill {len(windows)} windows of {length} tokens, at least"
            f" {MIN_WINDOWS} are needed"
        )
    return torch.stack(windows)
