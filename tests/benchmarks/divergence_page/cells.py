"""Format figures of one point for cells of tables."""

from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]


def fdt(point: Figures) -> str:
    return f"{point['fdt_mean']:.1f}{interval(point['fdt_mean_interval'])}"


def fdt_75(point: Figures) -> str:
    return f"{point['fdt_75']:.1f}"


def perplexity(point: Figures) -> str:
    return f"{point['perplexity']:.2f}"


def interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f" [{ends[0]:.1f}, {ends[1]:.1f}]"
