"""A checkpoint made smaller as far as its own greedy text allows: search, curve, int8 tensors."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from assembler import evaluate, quantisation
from assembler.data import Reader, evenly
from assembler.network import Network
from assembler.quantisation import as_int8
from assembler.unit_search import UnitSearch
from engine import compression
from engine.compression import Unit
from engine.compression_curve import Compression, Curve, Point
from engine.divergence.aggregates import summarise
from engine.divergence.metrics import Continuation
from engine.gates import WINDOW_TOKENS
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import InvalidInput
from registry.manifests import Manifest
from registry.quantisation import WEIGHT

# Of held-out text, whose perplexity is told beside divergence.
PERPLEXITY_TOKENS = 1024
# A quarter of them decides first, and one text says nothing about percentiles.
MIN_WINDOWS = 4


class Compressor:
    """A checkpoint with the texts that it is held against.

    `documents` are those of each domain; held-out ones count. Raises InvalidInput for too little
    text, InvalidCheckpoint, and what `Compression.check` raises, before anything is computed.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        request: Compression,
        *,
        blobs: BlobStore,
        on_progress: Callable[[str], None],
    ) -> None:
        self.units = compression.units(manifest, request.target)
        request.check(self.units, num_bytes=manifest.num_bytes)
        self._manifest, self._request, self._blobs = manifest, request, blobs
        self._on_progress = on_progress
        reader = Reader.of(manifest, blobs)
        prompts = _held_out(reader, documents, length=request.prefix_tokens, count=request.prompts)
        windows = _held_out(
            reader, documents, length=WINDOW_TOKENS, count=PERPLEXITY_TOKENS // WINDOW_TOKENS
        )
        self._network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
        on_progress("the checkpoint writes its texts")
        self.texts = evaluate.runner(self._network).write(
            list(map(tuple, prompts.tolist())), num_tokens=request.completion_tokens
        )
        self.corpus = [Continuation((first,), tuple(rest)) for first, *rest in windows.tolist()]

    def curve(self) -> Curve:
        """Search until a point answers the request, or all that may be is int8."""
        request = self._request
        points = [self.point(())]
        search = UnitSearch(
            self._network,
            self.units,
            self.corpus if request.by == "perplexity" else self.texts,
            by=request.by,
            target=request.target,
            on_progress=self._on_progress,
        )
        for found in search.rounds(number=request.rounds, beam_width=request.beam_width):
            points.append(self.point(found.units))
            fits = points[-1].satisfies(request, floor=points[0])
            # Of a size the first that is small enough, of a quality the last that is true enough.
            if fits == (request.max_bytes is not None):
                break
        return Curve(request=request, points=tuple(points))

    def point(self, units: Sequence[Unit]) -> Point:
        """Measure the checkpoint with these units in int8."""
        modules = [module for unit in units for module in unit.modules]
        with as_int8(self._network, modules, target=self._request.target):
            own = summarise(self.texts, evaluate.runner(self._network).read(self.texts))
            corpus = summarise(self.corpus, evaluate.runner(self._network).read(self.corpus))
        tensors = [self._manifest.tensors[module + WEIGHT].shape for module in modules]
        num_int8 = sum(rows * columns for rows, columns in tensors)
        return Point(
            units=tuple(unit.name for unit in units),
            num_bytes=compression.num_bytes(self._manifest, units),
            int8_share=num_int8 / self._manifest.architecture.num_parameters,
            fdt_75=own.fdt.p75,
            fdt_mean=own.fdt.mean,
            dppl=own.perplexity,
            perplexity=corpus.perplexity,
        )

    def write(self, point: Point) -> Manifest:
        """The checkpoint of a point, stored. Raises OutOfSpace."""
        modules = [m for unit in self.units if unit.name in point.units for m in unit.modules]
        return quantisation.compress(
            self._manifest, modules, target=self._request.target, blobs=self._blobs
        )


def _held_out(
    reader: Reader, documents: Sequence[Sequence[Document]], *, length: int, count: int
) -> Tensor:
    """About `count` windows [n, length], as many of each domain, the domains taking turns: a search
    may look at the first few only."""
    share = -(-count // len(documents))
    domains = [
        evenly(reader.windows(own, split="held-out", length=length), count=share)
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
