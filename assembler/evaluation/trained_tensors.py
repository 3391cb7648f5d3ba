"""Hold what a finetune changed against how far its steps can move a weight.

That is known without its texts: a fault in a trained tensor, such as a change that is applied
twice, goes farther than the optimizer can.
"""

from collections.abc import Iterator

import numpy as np

from assembler.recipes.recipe import Finetune
from assembler.training.optimizer import largest_change
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.checkpoints.tensor_names import is_router
from registry.errors import Problem, pointer

BLOCK_NUMBERS = 1 << 20
# Largest rounding error of a stored weight, as a share of the weight: half of its last digit.
ROUNDED = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-22}
# Steps are computed in float32.
SLACK = 1.001


def check(
    recipe: Finetune, before: Manifest, after: Manifest, blobs: BlobStore
) -> Iterator[Problem]:
    """Yield each tensor with a weight that moved farther than the steps of a finetune can."""
    for name, entry in after.tensors.items():
        start = before.tensors[name]
        if entry == start:
            continue
        rate = recipe.router_learning_rate if is_router(name) else recipe.learning_rate
        largest = SLACK * largest_change(recipe, rate)
        excess = max(
            float((np.abs(y - x) - ROUNDED[entry.dtype] * np.abs(y)).max())
            for x, y in zip(_pieces(blobs, start), _pieces(blobs, entry), strict=True)
        )
        # Written so that NaN is a problem.
        if not excess <= largest:
            detail = f"a weight moved by {excess:.2g}, the steps can move it by {largest:.2g}"
            yield Problem(pointer("tensors", name), detail)


def _pieces(blobs: BlobStore, entry: TensorEntry) -> Iterator[Floats]:
    """Yield a tensor in blocks of rows."""
    if len(entry.shape) != 2:
        yield numpy_tensors.read(blobs, entry)
        return
    num_rows, width = entry.shape
    step = max(1, BLOCK_NUMBERS // width)
    for start in range(0, num_rows, step):
        yield numpy_tensors.read_rows(blobs, entry, slice(start, min(start + step, num_rows)))
