"""What products are computed in, by what the machine has."""

import pytest

from assembler import precision
from registry import processor


@pytest.mark.parametrize(
    ("is_cpu_build", "multiplies", "dtype"),
    [(True, True, "bfloat16"), (True, False, "float32"), (False, False, "bfloat16")],
)
def test_bfloat16_where_it_is_fast(
    is_cpu_build: bool, multiplies: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "is_cpu_build", lambda: is_cpu_build)
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: multiplies)
    assert precision.fastest() == dtype
    # Beside a GPU the processor is as it is.
    assert precision.fastest_on_cpu() == ("bfloat16" if multiplies else "float32")
