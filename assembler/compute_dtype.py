"""What products are computed in."""

from typing import Literal

from engine.vllm_build import is_cpu_build
from registry import cpu_features

ComputingDtype = Literal["bfloat16", "float32"]


def fastest() -> ComputingDtype:
    """What training computes in: bfloat16 on GPUs, else `fastest_on_cpu`."""
    return fastest_on_cpu() if is_cpu_build() else "bfloat16"


def fastest_on_cpu() -> ComputingDtype:
    """bfloat16 on processors that multiply in it; also what computes there beside a GPU."""
    return "bfloat16" if cpu_features.multiplies_bfloat16() else "float32"
