"""The curve of a compression on the terminal."""

import pytest

from engine.compression.int8_curve import Compression, Curve, Point
from service.terminal.compression_tables import print_curve


def point(*units: str, num_bytes: int, fdt: float) -> Point:
    return Point(
        units=units, num_bytes=num_bytes, int8_share=len(units) / 2,
        fdt_75=fdt, fdt_mean=fdt, dppl=1.0, perplexity=9.5,
    )  # fmt: skip


def test_the_chosen_point_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    curve = Curve(
        request=Compression(min_fdt_75=20),
        points=(
            point(num_bytes=2_000_000, fdt=32),
            point("a", num_bytes=1_500_000, fdt=24),
            point("a", "b", num_bytes=1_000_000, fdt=3),
        ),
    )
    print_curve(curve)
    lines = capsys.readouterr().out.splitlines()
    (marked,) = (line for line in lines if "*" in line)
    assert "1.5 MB" in marked
    assert "50%" in marked
    assert "24.0" in marked
    assert sum("MB" in line for line in lines) == 3
