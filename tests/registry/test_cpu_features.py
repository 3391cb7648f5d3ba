"""The instruction sets of the processor are read from /proc/cpuinfo."""

from pathlib import Path

import pytest

from registry import cpu_features

INTEL = """processor\t: 0
model name\t: A Xeon
flags\t\t: fpu avx2 avx512f avx512_bf16 rdtscp

processor\t: 1
"""
XEON = "flags\t\t: fpu avx2 avx512_vnni\n"
LAPTOP = "model name\t: A laptop\nflags\t\t: fpu avx2\n"
NEWER_LAPTOP = "flags\t\t: fpu avx2 avx_vnni\n"
ARM = "BogoMIPS\t: 2000\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(
    ("cpuinfo", "instructions", "multiplies", "saturates"),
    [
        (INTEL, ("avx2", "avx512f", "avx512_bf16"), True, True),
        (XEON, ("avx2", "avx512_vnni"), False, False),
        (LAPTOP, ("avx2",), False, True),
        (NEWER_LAPTOP, ("avx2",), False, False),
        (ARM, ("bf16",), True, False),
    ],
)
def test_instructions_are_those_of_the_first_core(
    cpuinfo: str,
    instructions: tuple[str, ...],
    multiplies: bool,
    saturates: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(cpu_features, "CPUINFO", file)
    assert cpu_features.vector_instructions() == instructions
    assert cpu_features.multiplies_bfloat16() == multiplies
    assert cpu_features.saturates_int8() == saturates
    assert cpu_features.multiplies_int8() == (cpuinfo in (XEON, NEWER_LAPTOP))


def test_without_cpuinfo_only_the_kind_of_processor_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_features, "CPUINFO", tmp_path / "missing")
    assert cpu_features.vector_instructions() == ()
    assert not cpu_features.multiplies_bfloat16()
