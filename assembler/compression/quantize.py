"""A checkpoint made smaller as far as its own greedy text allows: search, curve, int8 tensors."""

from collections.abc import Callable, Iterator, Sequence

from assembler.compression import int8_checkpoint
from assembler.compression.probe import Probe
from assembler.compression.smoothquant import smooth
from assembler.compression.unit_search import UnitSearch
from assembler.network.int8_linear import as_int8
from engine.compression import int8_units
from engine.compression.int8_curve import Compression, Curve, Point
from engine.compression.int8_units import Unit
from registry.blobs import BlobStore
from registry.documents import Document
from registry.int8_config import WEIGHT
from registry.manifests import Manifest


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
        self.units = int8_units.units(manifest, request.target)
        request.check(self.units, num_bytes=manifest.num_bytes)
        self._manifest, self._request, self._blobs = manifest, request, blobs
        self._on_progress = on_progress
        self.yardstick = Probe(manifest, documents, request, blobs=blobs, on_progress=on_progress)
        on_progress("the largest inputs of every layer are read")
        self._smoothings = smooth(
            self.yardstick.network,
            self.units,
            target=request.target,
            read=self.yardstick.measure,
        )

    def curve(self) -> Curve:
        """Search until a point answers the request; its last point is all units in int8, if what
        that costs was asked."""
        request = self._request
        points = [self.point(())]
        if request.min_fdt_75 is not None:
            everything = self.point(self.units)
            if everything.satisfies(request, floor=points[0]):
                return Curve(request=request, points=(*points, everything))
        points += self._searched(floor=points[0])
        if request.min_fdt_75 is not None and points[-1].num_bytes > everything.num_bytes:
            points.append(everything)
        return Curve(request=request, points=tuple(points))

    def _searched(self, *, floor: Point) -> Iterator[Point]:
        """Of a size until one is small enough, of a quality until one is not true enough."""
        request = self._request
        search = UnitSearch(
            self.yardstick.network,
            self.units,
            self.yardstick.corpus if request.by == "perplexity" else self.yardstick.texts,
            by=request.by,
            target=request.target,
            on_progress=self._on_progress,
        )
        for found in search.rounds(number=request.rounds, beam_width=request.beam_width):
            point = self.point(found.units)
            yield point
            if point.satisfies(request, floor=floor) == (request.max_bytes is not None):
                return

    def point(self, units: Sequence[Unit]) -> Point:
        """Measure the checkpoint with these units in int8."""
        modules = int8_units.modules(units)
        with as_int8(self.yardstick.network, modules, target=self._request.target):
            measures = self.yardstick.measure()
        tensors = [self._manifest.tensors[module + WEIGHT] for module in modules]
        num_int8 = sum(entry.num_numbers for entry in tensors)
        return Point(
            units=tuple(unit.name for unit in units),
            num_bytes=int8_units.num_bytes(self._manifest, units),
            int8_share=num_int8 / self._manifest.architecture.num_parameters,
            **measures.model_dump(),
        )

    def write(self, point: Point) -> Manifest:
        """The checkpoint of a point, stored. Raises OutOfSpace."""
        modules = int8_units.modules(unit for unit in self.units if unit.name in point.units)
        return int8_checkpoint.write(
            self._manifest,
            modules,
            target=self._request.target,
            blobs=self._blobs,
            smoothings=self._smoothings,
        )
