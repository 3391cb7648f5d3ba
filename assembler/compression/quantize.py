"""Make a checkpoint int8 as far as its own greedy text allows: search, curve, tensors."""

from collections.abc import Iterator, Sequence

from assembler.compression import int8_checkpoint
from assembler.compression.probe import Probe
from assembler.compression.smoothquant import smooth
from assembler.compression.unit_search import UnitSearch
from assembler.network.int8_linear import as_int8
from assembler.progress import OnMessage
from engine.compression import int8_units
from engine.compression.int8_curve import Compression, Curve, Point
from engine.compression.int8_units import Unit
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import WEIGHT


class Compressor:
    """Compresses one checkpoint and compares it with the text that it wrote before.

    `documents` holds the documents of each domain; only held-out ones are read. Raises, before
    anything is computed, InvalidInput for too little text, InvalidCheckpoint, and what
    `Compression.check` raises.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        request: Compression,
        *,
        blobs: BlobStore,
        on_progress: OnMessage,
    ) -> None:
        self.units = int8_units.units(manifest, request.target)
        request.check(self.units, num_bytes=manifest.num_bytes)
        self._manifest, self._request, self._blobs = manifest, request, blobs
        self._on_progress = on_progress
        self.probe = Probe(manifest, documents, request, blobs=blobs, on_progress=on_progress)
        on_progress("reading the largest inputs of every layer")
        self._smoothings = smooth(
            self.probe.network,
            self.units,
            target=request.target,
            read=self.probe.measure,
        )

    def curve(self) -> Curve:
        """Search until a point satisfies the request. With a limit on FDT, the last point is the
        checkpoint with all units in int8, unless the search has already saved as much."""
        request = self._request
        points = [self.point(())]
        if request.min_fdt_75 is not None:
            everything = self.point(self.units)
            if everything.satisfies(request, floor=points[0]):
                return Curve(request=request, points=(*points, everything))
        points += self._search(floor=points[0])
        if request.min_fdt_75 is not None and points[-1].num_bytes > everything.num_bytes:
            points.append(everything)
        return Curve(request=request, points=tuple(points))

    def _search(self, *, floor: Point) -> Iterator[Point]:
        """Yield points until one is small enough (`max_bytes`), or until one diverges too early
        (`min_fdt_75`)."""
        request = self._request
        search = UnitSearch(
            self.probe.network,
            self.units,
            self.probe.corpus if request.by == "perplexity" else self.probe.texts,
            by=request.by,
            target=request.target,
            on_progress=self._on_progress,
        )
        for best in search.rounds(number=request.rounds, beam_width=request.beam_width):
            point = self.point(best.units)
            yield point
            if point.satisfies(request, floor=floor) == (request.max_bytes is not None):
                return

    def point(self, units: Sequence[Unit]) -> Point:
        """Measure the checkpoint with these units in int8."""
        modules = int8_units.modules(units)
        with as_int8(self.probe.network, modules, target=self._request.target):
            measures = self.probe.measure()
        tensors = [self._manifest.tensors[module + WEIGHT] for module in modules]
        num_int8 = sum(entry.num_numbers for entry in tensors)
        return Point(
            units=tuple(unit.name for unit in units),
            num_bytes=int8_units.num_bytes(self._manifest, units),
            int8_share=num_int8 / self._manifest.architecture.num_parameters,
            **measures.model_dump(),
        )

    def write(self, point: Point) -> Manifest:
        """Store the checkpoint of a point and return its manifest. Raises OutOfSpace."""
        modules = int8_units.modules(unit for unit in self.units if unit.name in point.units)
        return int8_checkpoint.write(
            self._manifest,
            modules,
            target=self._request.target,
            blobs=self._blobs,
            smoothings=self._smoothings,
        )
