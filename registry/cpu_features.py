"""The processor of this machine: its name, and the instructions that numbers depend on."""

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# As Linux lists them: what libraries choose their kernels by, and with them the order of sums and
# the rounding. The last three, of x86 and of Arm, multiply bfloat16 numbers.
VECTOR_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "bf16")
MULTIPLYING_BFLOAT16 = frozenset(VECTOR_INSTRUCTIONS[-3:])
# Add int8 products in 32 bits.
VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def name() -> str:
    return _listed().get("model name", platform.processor())


def vector_instructions() -> tuple[str, ...]:
    """Those of `VECTOR_INSTRUCTIONS` that it has."""
    found = _listed().get("flags") or _listed().get("Features") or ""
    return tuple(own for own in VECTOR_INSTRUCTIONS if own in found.split())


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 is worth computing in: without, products are forty times slower than in
    float32 (torch 2.13 on a processor with AVX2)."""
    return not MULTIPLYING_BFLOAT16.isdisjoint(vector_instructions())


def multiplies_int8() -> bool:
    """Whether it adds int8 products in 32 bits, on x86."""
    return not VNNI.isdisjoint(_flags())


def saturates_int8() -> bool:
    """Whether sums of int8 products are cut off, which no kernel tells: on x86 without VNNI."""
    return "avx2" in _flags() and not multiplies_int8()


def _flags() -> list[str]:
    return _listed().get("flags", "").split()


def _listed() -> Mapping[str, str]:
    """What Linux says of the first core; nothing on other systems."""
    return _read(CPUINFO)


@cache
def _read(cpuinfo: Path) -> Mapping[str, str]:
    if not cpuinfo.exists():
        return {}
    core = cpuinfo.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in core.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
