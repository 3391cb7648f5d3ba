"""Hold the tensors of an assembled mix against those of its parents, without the assembler's code.

A second assembly would repeat an error of the first. So which tensor comes from which parent is
said here once more, and averages are computed another way: in float64, and by regression from the
normal equations. Of a large average some rows are computed, evenly spread.

Letters: N experts, R rows, O rows of a weight, I width of an input, K directions of an expert.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from assembler.assembly.inputs import MixParts
from assembler.assembly.regression import RIDGE, Member
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import (
    as_routed_expert,
    as_shared_expert,
    input_of,
    is_attention,
    is_ffn,
    is_key_value,
)
from registry.errors import Problem, pointer

MAX_ROWS = 32
# A number is rounded by at most half of its last digit; frexp gives an exponent one too high.
HALF_DIGITS = {"BF16": 9, "F16": 12, "F32": 25}
# Of sums in float32, as a share of the largest number in them.
SUM_ERROR = 2.0**-20

Exact = NDArray[np.float64]


def check(parts: MixParts, assembled: Manifest) -> Iterator[Problem]:
    """Yield each tensor that is neither a parent's, byte by byte, nor their average."""
    for name, entry, right in _copies(parts, assembled.architecture):
        made = assembled.tensors.get(name)
        if made != right:
            state = "is missing" if made is None else f"has SHA-256 {made.digest[:12]}"
            yield Problem(pointer("tensors", name), f"{state}, {entry} has {right.digest[:12]}")
    for name in _averaged(parts, assembled.architecture):
        if problem := _Averages(parts, name).problem(assembled.tensors.get(name)):
            yield Problem(pointer("tensors", name), problem)


def _is_copied(name: str, mix: Architecture) -> bool:
    """Tell whether a tensor of a dense checkpoint is a tensor of one expert in the mix."""
    if not mix.num_experts:
        return False
    own_attention = is_attention(name) and mix.attention != "average"
    if own_attention and mix.attention == "experts-shared-kv" and is_key_value(name):
        own_attention = False
    return is_ffn(name) or own_attention


def _averaged(parts: MixParts, mix: Architecture) -> Iterator[str]:
    return (name for name in parts.seed.tensors if not _is_copied(name, mix))


def _copies(parts: MixParts, mix: Architecture) -> Iterator[tuple[str, str, TensorEntry]]:
    """Yield the names of copied tensors, of their owners, and what the owners have.

    What a base has is the base's: it may have trained it. A routed seed is the last expert.
    """
    recipe, base = parts.inputs.recipe, parts.base
    owners = [
        (ref, checkpoint, None if base is None else base.position(ref))
        for ref, checkpoint in zip(recipe.experts, parts.experts, strict=True)
    ]
    if not recipe.shared_expert:
        owners.append(("the seed", parts.seed, None if base is None else len(base.experts)))
    for dense in parts.seed.tensors:
        if not _is_copied(dense, mix):
            continue
        for number, (owner, checkpoint, place) in enumerate(owners):
            name = as_routed_expert(dense, number)
            if base is None or place is None:
                yield name, owner, checkpoint.tensors[dense]
            else:
                yield name, "the base", base.mix.tensors[as_routed_expert(dense, place)]
        if is_ffn(dense) and recipe.shared_expert:
            name = as_shared_expert(dense)
            if base is None:
                yield name, "the seed", parts.seed.tensors[dense]
            else:
                yield name, "the base", base.mix.tensors[name]


class _Averages:
    """What one tensor of the mix must be, as the average of its parents'."""

    def __init__(self, parts: MixParts, name: str) -> None:
        self._name, self._blobs = name, parts.blobs
        recipe, base = parts.inputs.recipe, parts.base
        seed = Member(checkpoint=parts.seed)
        also = [] if recipe.shared_expert and recipe.kind == "mixture" else [seed]
        self._after = [*parts.members, *also]
        self._before = [] if base is None else [*base.experts.values(), *also]
        self._start = None if base is None else base.mix.tensors[name]
        self._seed = parts.seed.tensors[name]
        is_tied = parts.seed.architecture.tie_word_embeddings
        self._read = input_of(name, is_tied=is_tied) if recipe.averages_by_regression else None

    def problem(self, made: TensorEntry | None) -> str | None:
        """Return what is wrong with the mix's tensor."""
        members = [*self._before, *self._after]
        entries = [member.checkpoint.tensors[self._name] for member in members]
        if made is None:
            return "is missing"
        if len({entry.digest for entry in entries}) == 1:
            right = self._start or entries[0]
            return None if made == right else f"is not {right.digest[:12]}, which no expert changed"
        first = self._start or entries[0]
        if (made.dtype, made.shape) != (first.dtype, first.shape):
            return f"is {made.dtype} {list(made.shape)}, not {first.dtype} {list(first.shape)}"
        found, right_RI, largest = self._values(made), self._right(), self._largest(entries)
        half = np.ldexp(1.0, np.frexp(right_RI)[1] - HALF_DIGITS[made.dtype])
        # Written so that NaN is a problem.
        if (np.abs(found - right_RI) <= half * 1.001 + SUM_ERROR * largest).all():
            return None
        error = float(np.abs(found - right_RI).max())
        return f"differs by {error:.2g} from the average of its parents"

    def _right(self) -> Exact:
        if self._start is None:
            return self._average(self._after)
        moved = self._average(self._after) - self._average(self._before)
        return self._values(self._start) + moved

    def _average(self, members: Sequence[Member]) -> Exact:
        values = [self._values(member.checkpoint.tensors[self._name]) for member in members]
        moments = [
            None
            if self._read is None or member.moments is None
            else member.moments.find(self._read)
            for member in members
        ]
        known = [moment for moment in moments if moment is not None]
        if len(known) < len(members):
            mean: Exact = np.mean(values, 0)
            return mean
        seed_RI = self._values(self._seed)
        return seed_RI + _regression([each - seed_RI for each in values], _moments(known))

    def _largest(self, entries: Sequence[TensorEntry]) -> float:
        all_entries = [*entries, *([] if self._start is None else [self._start])]
        return max(float(np.abs(self._values(entry)).max()) for entry in all_entries)

    def _values(self, entry: TensorEntry) -> Exact:
        """Return a vector, or evenly spread rows of a matrix."""
        if len(entry.shape) == 1:
            return numpy_tensors.read(self._blobs, entry).astype(np.float64)
        return _rows(self._blobs, entry)


def _rows(blobs: BlobStore, entry: TensorEntry) -> Exact:
    numbers = np.linspace(0, entry.shape[0] - 1, min(MAX_ROWS, entry.shape[0])).astype(int)
    rows = [numpy_tensors.read_rows(blobs, entry, slice(n, n + 1)) for n in numbers.tolist()]
    return np.concatenate(rows).astype(np.float64)


def _moments(stored: Sequence[NDArray[np.float32]]) -> list[Exact]:
    """Return the second moments [I, I] of stored ones [1 + K, I]; see `input_moments`."""
    exact = [moment.astype(np.float64) for moment in stored]
    whole = np.mean([moment[0] + np.square(moment[1:]).sum(0) for moment in exact])
    ridge = RIDGE * (whole or 1.0)
    return [np.diag(moment[0] + ridge) + moment[1:].T @ moment[1:] for moment in exact]


def _regression(changes: Sequence[Exact], moments: Sequence[Exact]) -> Exact:
    """Return the change X [R, I] with `X Σ G_i = Σ C_i G_i` (RegMean, arXiv 2212.09849)."""
    total_II = np.sum(moments, 0)
    wanted_RI = np.sum([c_RI @ g_II for c_RI, g_II in zip(changes, moments, strict=True)], 0)
    # Moments of inputs differ by many powers of ten; scaled, they can be solved exactly.
    scale_I = 1 / np.sqrt(np.diag(total_II))
    scaled_II = total_II * scale_I * scale_I[:, None]
    solved: Exact = np.linalg.solve(scaled_II, (wanted_RI * scale_I).T).T * scale_I
    return solved
