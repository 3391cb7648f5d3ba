"""How many GPUs this machine has, without loading a library for them."""

import os
from pathlib import Path

# The driver lists each card as a folder here.
CARDS = Path("/proc/driver/nvidia/gpus")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def num_gpus() -> int | None:
    """Return the number of GPUs that an engine of this machine can use; None if nobody can tell."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return len([name for name in visible.split(",") if name.strip()])
    try:
        return len(list(CARDS.iterdir()))
    except OSError:
        return None
