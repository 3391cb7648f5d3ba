"""What is read of the processor."""

from pathlib import Path

import pytest

from registry import processor

INTEL = """processor\t: 0
model name\t: A Xeon
flags\t\t: fpu avx2 avx512f avx512_bf16 rdtscp

processor\t: 1
"""
LAPTOP = "model name\t: A laptop\nflags\t\t: fpu avx2\n"
ARM = "BogoMIPS\t: 2000\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(
    ("cpuinfo", "instructions", "multiplies"),
    [
        (INTEL, ("avx2", "avx512f", "avx512_bf16"), True),
        (LAPTOP, ("avx2",), False),
        (ARM, ("bf16",), True),
    ],
)
def test_instructions_are_those_of_the_first_core(
    cpuinfo: str,
    instructions: tuple[str, ...],
    multiplies: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(processor, "CPUINFO", file)
    assert processor.vector_instructions() == instructions
    assert processor.multiplies_bfloat16() == multiplies


def test_a_system_that_lists_nothing_is_known_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "missing")
    assert processor.vector_instructions() == ()
    assert not processor.multiplies_bfloat16()
