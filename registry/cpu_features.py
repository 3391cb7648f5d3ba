"""The processor of this machine: its name, and the instruction sets that results depend on."""

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Names as in Linux. Libraries choose their kernels by these, and so the order of sums and the
# rounding. The last three (x86 and Arm) multiply bfloat16 numbers.
VECTOR_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "bf16")
MULTIPLYING_BFLOAT16 = frozenset(VECTOR_INSTRUCTIONS[-3:])
# These add int8 products in 32 bits.
VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def name() -> str:
    """Return the name of the processor."""
    return _cpuinfo().get("model name", platform.processor())


def vector_instructions() -> tuple[str, ...]:
    """Return the members of `VECTOR_INSTRUCTIONS` that the processor has, in that order."""
    flags = _cpuinfo().get("flags") or _cpuinfo().get("Features") or ""
    return tuple(name for name in VECTOR_INSTRUCTIONS if name in flags.split())


def multiplies_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 numbers.

    If not, matrix products in bfloat16 are forty times slower than in float32 (torch 2.13 on a
    processor with AVX2).
    """
    return not MULTIPLYING_BFLOAT16.isdisjoint(vector_instructions())


def multiplies_int8() -> bool:
    """Tell whether the processor is an x86 that adds int8 products in 32 bits."""
    return not VNNI.isdisjoint(_flags())


def saturates_int8() -> bool:
    """Tell whether sums of int8 products saturate without a warning, as on x86 without VNNI."""
    return "avx2" in _flags() and not multiplies_int8()


def _flags() -> list[str]:
    return _cpuinfo().get("flags", "").split()


def _cpuinfo() -> Mapping[str, str]:
    """Return the fields of the first core in /proc/cpuinfo; none on other systems than Linux."""
    return _read(CPUINFO)


@cache
def _read(cpuinfo: Path) -> Mapping[str, str]:
    if not cpuinfo.exists():
        return {}
    core = cpuinfo.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in core.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
