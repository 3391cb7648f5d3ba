"""Choose the dtype of matrix products."""

from typing import Literal

from engine.vllm_build import is_cpu_build
from registry import cpu_features

ComputingDtype = Literal["bfloat16", "float32"]


def fastest() -> ComputingDtype:
    """Return the dtype of training: bfloat16 on GPUs, otherwise `fastest_on_cpu`."""
    return fastest_on_cpu() if is_cpu_build() else "bfloat16"


def fastest_on_cpu() -> ComputingDtype:
    """Return bfloat16 on processors with bfloat16 products, otherwise float32."""
    return "bfloat16" if cpu_features.multiplies_bfloat16() else "float32"
