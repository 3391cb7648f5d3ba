"""Second moments of what an expert's attention and head read in its documents, kept in one blob.

A mix averages these weights by them; see `assembler.assembly.regression`. The moment `E[x xᵀ]` of
inputs x [I] is kept as rows [1 + K, I]: a diagonal, then principal directions, so that the moment
is about `diag(rows[0]) + rows[1:]ᵀ rows[1:]`. Free of torch.

Embeddings that are not the head would need the share of each token. It is not kept: it says too
much about documents, which their owner may have forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import safetensors
import safetensors.numpy

from registry.blobs.blobs import BlobStore, put_bytes
from registry.checkpoints.architecture import Architecture, Shape
from registry.checkpoints.manifests import Dtype
from registry.checkpoints.numpy_tensors import Floats
from registry.checkpoints.tensor_names import input_of

MOMENTS_DTYPE: Dtype = "F32"
# Principal directions of an input. What they leave out stays in the diagonal.
NUM_DIRECTIONS = 16


@dataclass(frozen=True)
class InputMoments:
    """The moments of one expert, read one by one from the file of their blob."""

    path: Path

    @classmethod
    def of(cls, blobs: BlobStore, digest: str) -> Self:
        """Return the moments of a blob. Raises NotFound."""
        return cls(blobs.local_path(digest))

    def find(self, name: str) -> Floats | None:
        """Return the moment of an input by its name, see `input_of`; None if it has none."""
        with safetensors.safe_open(self.path, framework="numpy") as file:
            return cast(Floats, file.get_tensor(name)) if name in file.keys() else None  # noqa: SIM118  # the file is no mapping


def write(blobs: BlobStore, moments: Mapping[str, Floats]) -> str:
    """Store moments by the names of their inputs and return the digest. Raises OutOfSpace."""
    return put_bytes(blobs, safetensors.numpy.save(dict(moments)))


def shapes(dense: Architecture) -> dict[str, Shape]:
    """Return the shape of the moment of each input of a dense network, by its name."""
    found: dict[str, Shape] = {}
    for name, shape in dense.tensor_shapes().items():
        read = input_of(name, is_tied=dense.tie_word_embeddings)
        if read is not None:
            width = shape[-1]
            found[read] = (1 + min(NUM_DIRECTIONS, width), width)
    return found
