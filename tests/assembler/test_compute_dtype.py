"""The fastest data type for matrix products, by build and processor."""

import pytest

from assembler import compute_dtype
from registry import cpu_features


@pytest.mark.parametrize(
    ("is_cpu_build", "multiplies", "dtype"),
    [(True, True, "bfloat16"), (True, False, "float32"), (False, False, "bfloat16")],
)
def test_bfloat16_where_it_is_fast(
    is_cpu_build: bool, multiplies: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute_dtype, "is_cpu_build", lambda: is_cpu_build)
    monkeypatch.setattr(cpu_features, "multiplies_bfloat16", lambda: multiplies)
    assert compute_dtype.fastest() == dtype
    # A GPU build does not change what the CPU multiplies fast.
    assert compute_dtype.fastest_on_cpu() == ("bfloat16" if multiplies else "float32")
