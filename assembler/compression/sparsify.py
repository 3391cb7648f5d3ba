"""Make a checkpoint sparse as far as its own greedy text allows: search, curve, stored tensors.

With `retrain_tokens` the remaining weights are trained after each round, and the next round
searches on the trained network. Every point is compared with the text of the original checkpoint.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from assembler.compression import pruning, structural_pruning
from assembler.compression.probe import Probe
from assembler.compression.pruning import as_pruned
from assembler.compression.retraining import Retraining
from assembler.compression.share_search import ShareSearch
from assembler.progress import OnMessage
from engine.compression.sparsity_components import Shares, components, total_share
from engine.compression.sparsity_curve import SparsePoint, Sparsification, SparsityCurve
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import WEIGHT
from registry.errors import InvalidInput


class Sparsifier:
    """Prunes one checkpoint and compares it with the text that it wrote before.

    `documents` holds the documents of each domain: held-out ones are compared, and those for
    training are used for retraining. Raises, before anything is computed, InvalidInput for too
    little text or nothing to prune, and InvalidCheckpoint.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        request: Sparsification,
        *,
        blobs: BlobStore,
        on_progress: OnMessage,
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
        # Retrained weights of the last point that satisfied the request.
        self._learned: dict[str, Tensor] = {}
        self.probe = Probe(manifest, documents, request, blobs=blobs, on_progress=on_progress)

    def curve(self) -> SparsityCurve:
        """Search up to the requested share, or until the checkpoint diverges too early.

        Raises StepFailed when the loss of a retraining is not finite.
        """
        request, network = self._request, self.probe.network
        points = [self.point({})]
        search = ShareSearch(
            network,
            self.components,
            self.probe.texts,
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
        network = self.probe.network
        with as_pruned(network, shares):
            measures = self.probe.measure()
            zeros = {name: pruning.num_zeros(network, name) for name in shares}
        return SparsePoint(
            shares=dict(shares),
            share=total_share(self.components, shares),
            num_bytes=self._num_bytes(zeros),
            **measures.model_dump(),
        )

    def write(self, point: SparsePoint) -> Manifest:
        """Store the checkpoint of a point, without the columns and layers that are all zeros.

        After retraining only the point that `curve` chose can be written. Raises OutOfSpace.
        """
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
        """Return the stored size of all tensors, given the number of zeros of some."""
        saved = 0
        for name, count in zeros.items():
            entry = self._manifest.tensors[name + WEIGHT]
            sparse = replace(entry, num_nonzero=entry.num_numbers - count)
            stored = min(entry.num_bytes, sparse.num_stored_bytes)
            saved += entry.num_stored_bytes - stored
        return self._manifest.num_stored_bytes - saved
