"""A checkpoint made sparse as far as its own greedy text allows: search, curve, stored tensors.

With `retrain_tokens` what is left learns again behind each round, and the next round searches on
that; all is held against the text of the checkpoint as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from assembler.compression import pruning, structural_pruning
from assembler.compression.probe import Probe
from assembler.compression.pruning import as_pruned
from assembler.compression.retraining import Retraining
from assembler.compression.share_search import ShareSearch
from engine.compression.sparsity_components import Shares, components, total_share
from engine.compression.sparsity_curve import SparsePoint, Sparsification, SparsityCurve
from engine.vllm_plugin import tensors
from registry import manifests
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import InvalidInput
from registry.int8_config import WEIGHT
from registry.manifests import Manifest


class Sparsifier:
    """A checkpoint with the texts that it is held against.

    `documents` are those of each domain; held-out ones count, and for retraining those for
    training. Raises InvalidInput for too little text or nothing to prune, InvalidCheckpoint, before
    anything is computed.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        request: Sparsification,
        *,
        blobs: BlobStore,
        on_progress: Callable[[str], None],
    ) -> None:
        self.components = components(manifest)
        if not self.components:
            raise InvalidInput("nothing of this checkpoint can be pruned: it is int8 already")
        self._manifest, self._request, self._blobs = manifest, request, blobs
        self._on_progress = on_progress
        self._retraining: Retraining | None = None
        if request.retrain_tokens:
            self._retraining = Retraining(
                manifest,
                documents,
                tokens=request.retrain_tokens,
                blobs=blobs,
                on_progress=on_progress,
            )
        # Of the last point that was true enough, where they were retrained.
        self._learned: dict[str, Tensor] = {}
        self.yardstick = Probe(manifest, documents, request, blobs=blobs, on_progress=on_progress)

    def curve(self) -> SparsityCurve:
        """Search to the share that is asked for, or until the checkpoint is not true enough.

        Raises StepFailed when the loss of a retraining is not finite.
        """
        request, network = self._request, self.yardstick.network
        points = [self.point({})]
        search = ShareSearch(
            network,
            self.components,
            self.yardstick.texts,
            by=request.by,
            on_progress=self._on_progress,
        )
        for shares in search.rounds(request.totals):
            if self._retraining is not None:
                self._retraining.run(network, shares)
            points.append(self.point(shares))
            if not points[-1].satisfies(request, floor=points[0]):
                break
            if self._retraining is not None:
                self._learned = {n: network.get_parameter(n + WEIGHT) for n in shares}
        return SparsityCurve(request=request, points=tuple(points))

    def point(self, shares: Shares) -> SparsePoint:
        """Measure the checkpoint with these shares of zeros."""
        network = self.yardstick.network
        with as_pruned(network, shares):
            measures = self.yardstick.measure()
            zeros = {name: pruning.num_zeros(network, name) for name in shares}
        return SparsePoint(
            shares=dict(shares),
            share=total_share(self.components, shares),
            num_bytes=self._num_bytes(zeros),
            **measures.model_dump(),
        )

    def write(self, point: SparsePoint) -> Manifest:
        """The checkpoint of a point, stored; what vanished is removed. Of a retrained one the
        point is that which `curve` has chosen. Raises OutOfSpace."""
        made = dict(self._manifest.tensors)
        for name, share in point.shares.items():
            weight = tensors.read(self._blobs, made[name + WEIGHT])
            if name in self._learned:
                weight = self._learned[name].to(weight.dtype)
            made[name + WEIGHT] = pruning.store(self._blobs, weight, share)
        sparse = replace(self._manifest, tensors=made)
        manifests.store(self._blobs, sparse)
        return (
            sparse
            if self._request.keep_zeros
            else structural_pruning.without_zeros(sparse, self._blobs)
        )

    def _num_bytes(self, zeros: dict[str, int]) -> int:
        """Of all tensors as they are stored, with so many zeros in some."""
        saved = 0
        for name, count in zeros.items():
            entry = self._manifest.tensors[name + WEIGHT]
            sparse = replace(entry, num_nonzero=entry.num_numbers - count)
            stored = min(entry.num_bytes, sparse.num_stored_bytes)
            saved += entry.num_stored_bytes - stored
        return self._manifest.num_stored_bytes - saved
