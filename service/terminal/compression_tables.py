"""Prints the curve of a compression: size against divergence, point by point."""

from collections.abc import Iterable

from engine.compression.int8_curve import Curve
from engine.compression.measures import Measures
from engine.compression.sparsity_curve import SparsePoint, SparsityCurve
from service.quantities import size
from service.terminal.console import print_rows

MEASURES = ("FDT 75", "FDT", "DPPL", "perplexity")
# A matrix counts as nearly empty from this share of zeros.
NEARLY_EMPTY = 0.9


def print_curve(curve: Curve) -> None:
    """Print one line for each number of int8 units. The first line is the noise floor; * marks the
    chosen point."""
    rows = [
        (
            _mark(point == curve.chosen),
            str(len(point.units)),
            f"{point.int8_share:.0%}",
            size(point.num_bytes),
            *_measures(point),
        )
        for point in curve.points
    ]
    print_rows(("", "units", "int8", "size", *MEASURES), rows)


def print_sparsity_curve(curve: SparsityCurve, *, chosen: SparsePoint) -> None:
    """Print one line for each share of zeros; * marks the chosen point."""
    rows = [
        (
            _mark(point == chosen),
            f"{point.share:.0%}",
            str(_num_nearly_empty(point.shares.values())),
            size(point.num_bytes),
            *_measures(point),
        )
        for point in curve.points
    ]
    print_rows(("", "zeros", "from 90 %", "size", *MEASURES), rows)


def _mark(is_chosen: bool) -> str:
    return "*" if is_chosen else ""


def _num_nearly_empty(shares: Iterable[float]) -> int:
    return sum(share >= NEARLY_EMPTY for share in shares)


def _measures(point: Measures) -> tuple[str, ...]:
    return (
        f"{point.fdt_75:.1f}",
        f"{point.fdt_mean:.1f}",
        f"{point.dppl:.4f}",
        f"{point.perplexity:.3f}",
    )
