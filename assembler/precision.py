"""What products are computed in."""

from typing import Literal

from engine.server import is_cpu_build
from registry import processor

ComputingDtype = Literal["bfloat16", "float32"]


def fastest() -> ComputingDtype:
    """bfloat16 on GPUs, and on processors that multiply in it."""
    return "bfloat16" if not is_cpu_build() or processor.multiplies_bfloat16() else "float32"
