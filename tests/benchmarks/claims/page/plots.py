"""The results as plots, small SVG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tests.benchmarks.claims.page import tables
from tests.benchmarks.claims.page.tables import LARGE, smalls

# The same bytes for the same figures.
matplotlib.rcParams["svg.hashsalt"] = "nexusmix"
matplotlib.rcParams["svg.fonttype"] = "none"

Figures = Mapping[str, Any]


def write(families: Figures, folder: Path) -> None:
    """Every plot that there are figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "budgets": _budgets,
        "routing": _routing,
        "similarity": _similarity,
        "zero-tokens": _zero_tokens,
        "attention": _attention,
    }
    for name, make in makers.items():
        plot = make(families)
        if plot is not None:
            plot.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _budgets(families: Figures) -> Figure | None:
    """Share of the gain against tokens, by method; dashed what differs from a solid line of its
    color in the loss that routers are told by."""
    found = tables.upcycled(families)
    if not found:
        return None
    plot = Figure(figsize=(5.5 * len(found), 4.5))
    colors: dict[str, str] = {}
    for axes, (family, of_seeds) in zip(plot.subplots(1, len(found)), found.items(), strict=True):
        for method in (name for name, own in of_seeds[0].items() if "share_of_gain" not in own):
            shares = _shares(method, of_seeds)
            if len(shares) > 1:
                base, _, loss = method.partition(", ")
                color = colors.setdefault(base, f"C{len(colors)}")
                style = "--" if loss else "-"
                axes.plot(*zip(*shares, strict=True), style, marker=".", color=color, label=method)
        axes.set_xscale("symlog", linthresh=5_000)
        ticks = {b for own in of_seeds[0].values() if "share_of_gain" not in own for b in own}
        axes.set_xticks(sorted(map(int, ticks)), [f"{b:,}" for b in sorted(map(int, ticks))])
        axes.minorticks_off()
        axes.set_title(family, fontsize=10)
        axes.set_xlabel("tokens of the finetune")
        axes.axhline(100, color="grey", linewidth=0.8)
        axes.legend(fontsize=7)
    plot.axes[0].set_ylabel("% of the right experts' gain")
    plot.tight_layout()
    return plot


def _shares(method: str, of_seeds: Sequence[Figures]) -> list[tuple[int, float]]:
    """Of every budget that all training seeds have, the mean over them, in percent."""
    of_method = [own.get(method, {}) for own in of_seeds]
    budgets = [b for b in of_method[0] if all(b in own for own in of_method)]
    return [
        (int(b), 100 * float(np.mean([own[b]["share_of_gain"][0] for own in of_method])))
        for b in budgets
    ]


def _routing(families: Figures) -> Figure | None:
    """Where the tokens of each domain go, before and after the finetune."""
    found = families.get(LARGE, {}).get("upcycling")
    if found is None:
        return None
    budgets = list(found["nexus"])[:1] + list(found["nexus"])[-1:]
    if not budgets:
        return None
    plot = Figure(figsize=(10, 4.5))
    for axes, budget in zip(plot.subplots(1, 2), budgets, strict=True):
        routing = found["nexus"][budget]["routing"]
        shares = np.array(list(routing.values()))
        _heatmap(axes, shares, list(routing), title=f"after {int(budget):,} tokens")
    plot.tight_layout()
    return plot


def _similarity(families: Figures) -> Figure | None:
    """How alike domains are before the projection and after it."""
    found = families.get(LARGE, {}).get("similarity")
    if found is None:
        return None
    maps = found["cosines"]
    plot = Figure(figsize=(5 * len(maps), 4.5))
    for axes, (title, cosines) in zip(plot.subplots(1, len(maps)), maps.items(), strict=True):
        _heatmap(axes, np.array(cosines), found["domains"], title=title)
    plot.tight_layout()
    return plot


def _heatmap(axes: Axes, values: NDArray[np.float64], names: Sequence[str], *, title: str) -> None:
    """Of shares or cosines [N, N], in percent."""
    axes.imshow(values, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, fontsize=10)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        axes.text(
            column,
            row,
            f"{100 * value:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > 0.5 else "black",
        )


def _zero_tokens(families: Figures) -> Figure | None:
    """What each way of assembling reaches before anything is trained."""
    found = families.get(LARGE, {}).get("upcycling")
    if found is None:
        return None
    shares = {}
    for name, own in found.items():
        figures = own if "share_of_gain" in own else own.get("0")
        if figures is not None and name != "seed" and not name.startswith("expert "):
            shares[name] = figures["share_of_gain"]
    plot = Figure(figsize=(7, 3.5))
    axes = plot.subplots()
    values = np.array(list(shares.values()))
    errors = np.abs(values[:, 1:].T - values[:, 0])
    axes.barh(list(shares), 100 * values[:, 0], xerr=100 * errors, color="steelblue")
    axes.invert_yaxis()
    axes.set_xlabel("% of the right experts' gain, nothing trained")
    return plot


def _attention(families: Figures) -> Figure | None:
    """Attention experts against averaged attention, trained alike."""
    found = smalls(families, "attention", "-parallel")
    if not found:
        return None
    methods = list(found[0]["equal data"])
    plot = Figure(figsize=(7, 3.5))
    axes = plot.subplots()
    for offset, kind in ((-0.2, "equal data"), (0.2, "equal compute")):
        means = [
            np.exp(np.mean([own[kind][name]["mean_log_perplexity"][0] for own in found]))
            for name in methods
        ]
        axes.barh(np.arange(len(methods)) + offset, means, height=0.38, label=kind)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("held-out perplexity, geometric mean over domains")
    axes.legend(fontsize=8)
    return plot
