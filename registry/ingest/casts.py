"""Convert raw numbers from one float dtype to another, without torch."""

import numpy as np

from registry.checkpoints.manifests import Dtype
from registry.checkpoints.numpy_tensors import RAW_DTYPES, narrow, widen
from registry.errors import InvalidCheckpoint


def convert(data: bytes, source: Dtype, target: Dtype, *, name: str) -> tuple[bytes, bool]:
    """Return numbers of dtype `source` rounded to `target`, and whether all kept their values.

    Raises InvalidCheckpoint, with the `name` of the tensor, for a number that is not finite or too
    large for `target`.
    """
    numbers = widen(np.frombuffer(data, RAW_DTYPES[source]), source)
    if not np.isfinite(numbers).all():
        raise InvalidCheckpoint(f"tensor {name!r} holds NaN or infinity, expected finite numbers")
    with np.errstate(over="ignore"):
        raw = narrow(numbers, target)
        kept = widen(raw, target)
    if not np.isfinite(kept).all():
        largest = numbers[np.abs(numbers).argmax()]
        raise InvalidCheckpoint(
            f"tensor {name!r} holds {largest:g}, which is too large for {target}, the dtype of the"
            " family's seed"
        )
    return raw.tobytes(), bool((kept == numbers).all())
