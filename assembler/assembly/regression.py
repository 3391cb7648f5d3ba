"""Average experts by regression: keep what each expert's weights answer to what that expert reads.

RegMean (arXiv 2212.09849, section 3.2), on changes from the seed: of experts with changes `C_i`
[O, I] and second moments `G_i` [I, I] of their inputs, the change `Σ C_i G_i (Σ G_i)⁻¹` is the
nearest to each expert's own, in the squared error over the inputs of all experts. Equal changes
stay as they are. Moments are diagonals and few directions, so nothing of size I x I is ever made
(the Woodbury identity).

Letters: N experts, O rows of a weight, B rows of a block, I width of an input, K directions of an
expert, X directions of all experts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from assembler.routing.input_moments import InputMoments
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.checkpoints.tensor_names import input_of

# Numbers in one block of rows: a MB of float64 for each expert, and for each thread.
BLOCK_NUMBERS = 1 << 17
# Share of the mean moment that is added to every diagonal. Where no expert has read anything, the
# mean of their changes comes out.
RIDGE = 1e-6

# A few directions have most of the moment. In float32 they would drown the others.
Exact = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A dense checkpoint that is averaged, and the moments of its inputs if they are stored."""

    checkpoint: Manifest
    moments: InputMoments | None = None


class Rule(Protocol):
    """Makes one change of the changes of all experts."""

    def combine(self, changes: Sequence[Exact | None]) -> Exact:
        """Return the change [B, I] of some rows; an expert that changed nothing gives None."""


@dataclass(frozen=True)
class Average:
    """One tensor of every expert, and the rule by which they become one."""

    entries: Sequence[TensorEntry]
    rule: Rule


def of_inputs(name: str, members: Sequence[Member]) -> Average | None:
    """Return the average by regression; None where an expert has no moments of what it reads."""
    is_tied = members[0].checkpoint.architecture.tie_word_embeddings
    read = input_of(name, is_tied=is_tied)
    if read is None or any(member.moments is None for member in members):
        return None
    found = [member.moments.find(read) for member in members if member.moments is not None]
    moments = [moment for moment in found if moment is not None]
    if len(moments) < len(members):
        return None
    return Average(_entries(name, members), ByInputs(moments))


def of_mean(name: str, members: Sequence[Member]) -> Average:
    """Return the plain mean as an average."""
    return Average(_entries(name, members), Mean())


def moved(
    start: TensorEntry,
    *,
    seed: TensorEntry,
    before: Average | None,
    after: Average,
    blobs: BlobStore,
) -> TensorEntry:
    """Store `start` plus the change of `after`, less that of `before`, and return the entry.

    Changes are from the seed. They are computed in float64; the result is rounded to the dtype of
    `start`. Raises NotFound, OutOfSpace.
    """
    digest = blobs.put(_blocks(start, seed, before, after, blobs))
    return TensorEntry(start.dtype, start.shape, digest)


class Mean:
    """The plain mean of all changes."""

    def combine(self, changes: Sequence[Exact | None]) -> Exact:
        total: Exact = np.zeros(())
        for change_BI in changes:
            if change_BI is not None:
                total = total + change_BI
        return total / len(changes)


class ByInputs:
    """The regression of a linear, from the moments [1 + K, I] of its inputs; see `input_moments`.

    With the sum of all diagonals as a unit, `Σ G_i` is `1 + UᵀU` for all directions U [X, I], and
    its inverse `1 - Uᵀ(1 + UUᵀ)⁻¹U`.
    """

    def __init__(self, moments: Sequence[Floats]) -> None:
        exact = [moment.astype(np.float64) for moment in moments]
        self._directions = [moment[1:] for moment in exact]
        diagonals_NI = np.stack([moment[0] for moment in exact])
        whole_NI = diagonals_NI + np.stack([np.square(u_KI).sum(0) for u_KI in self._directions])
        self._diagonals_NI = diagonals_NI + RIDGE * (whole_NI.mean() or 1.0)
        self._unit_I = np.sqrt(self._diagonals_NI.sum(0))
        self._all_XI = np.concatenate(self._directions) / self._unit_I
        products_XX = np.eye(len(self._all_XI)) + self._all_XI @ self._all_XI.T
        self._solved_XI: Exact = np.linalg.solve(products_XX, self._all_XI)

    def combine(self, changes: Sequence[Exact | None]) -> Exact:
        total: Exact = np.zeros(())
        parts = zip(changes, self._diagonals_NI, self._directions, strict=True)
        for change_BI, diagonal_I, u_KI in parts:
            if change_BI is not None:
                total = total + change_BI * diagonal_I + (change_BI @ u_KI.T) @ u_KI
        if total.ndim == 0:
            return total
        total /= self._unit_I
        total -= (total @ self._all_XI.T) @ self._solved_XI
        total /= self._unit_I
        return total


def _entries(name: str, members: Sequence[Member]) -> list[TensorEntry]:
    return [member.checkpoint.tensors[name] for member in members]


def _blocks(
    start: TensorEntry,
    seed: TensorEntry,
    before: Average | None,
    after: Average,
    blobs: BlobStore,
) -> Iterator[bytes]:
    num_rows, width = seed.shape
    step = max(1, BLOCK_NUMBERS // width)
    for first in range(0, num_rows, step):
        rows = slice(first, min(first + step, num_rows))
        changes = _Changes(seed, rows, blobs)
        total_BI = changes.read(start) + changes.of(after)
        if before is not None:
            total_BI -= changes.of(before)
        yield numpy_tensors.narrow(total_BI.astype(np.float32), start.dtype).tobytes()


class _Changes:
    """Some rows of the experts' changes; those of an expert on both sides are read once."""

    def __init__(self, seed: TensorEntry, rows: slice, blobs: BlobStore) -> None:
        self._rows, self._blobs = rows, blobs
        self._seed, self._known = seed, dict[str, Exact]()
        self._seed_BI = self.read(seed)

    def read(self, entry: TensorEntry) -> Exact:
        """Return the rows of a tensor."""
        return numpy_tensors.read_rows(self._blobs, entry, self._rows).astype(np.float64)

    def of(self, average: Average) -> Exact:
        """Return the change that an average makes of the experts' changes."""
        changes = [self._change(entry) for entry in average.entries]
        return average.rule.combine(changes)

    def _change(self, entry: TensorEntry) -> Exact | None:
        if entry.digest == self._seed.digest:
            return None
        if entry.digest not in self._known:
            self._known[entry.digest] = self.read(entry) - self._seed_BI
        return self._known[entry.digest]
