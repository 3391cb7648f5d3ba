"""Draw the results as plots, in small SVG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tests.benchmarks.claims.page import tables
from tests.benchmarks.claims.page.tables import LARGE, small_llamas

# The same figures give the same bytes.
matplotlib.rcParams["svg.hashsalt"] = "nexusmix"
matplotlib.rcParams["svg.fonttype"] = "none"

Figures = Mapping[str, Any]


def write(families: Figures, folder: Path) -> None:
    """Write every plot whose figures were measured."""
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
    """Plot the share of the gain against tokens, by method.

    Lines of one color have the same router type. A dashed line names another loss of the routers.
    """
    measured = tables.upcycled(families)
    if not measured:
        return None
    plot = Figure(figsize=(5.5 * len(measured), 4.5))
    colors: dict[str, str] = {}
    for axes, (family, of_seeds) in zip(
        plot.subplots(1, len(measured)), measured.items(), strict=True
    ):
        for method in (name for name, f in of_seeds[0].items() if "share_of_gain" not in f):
            shares = _shares(method, of_seeds)
            if len(shares) > 1:
                base, _, loss = method.partition(", ")
                color = colors.setdefault(base, f"C{len(colors)}")
                style = "--" if loss else "-"
                axes.plot(*zip(*shares, strict=True), style, marker=".", color=color, label=method)
        axes.set_xscale("symlog", linthresh=5_000)
        ticks = {b for f in of_seeds[0].values() if "share_of_gain" not in f for b in f}
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
    """Return each budget that all training seeds have, with their mean share in percent."""
    of_method = [seed.get(method, {}) for seed in of_seeds]
    budgets = [b for b in of_method[0] if all(b in seed for seed in of_method)]
    return [
        (int(b), 100 * float(np.mean([seed[b]["share_of_gain"][0] for seed in of_method])))
        for b in budgets
    ]


def _routing(families: Figures) -> Figure | None:
    """Plot the routing of each domain's tokens, before and after the finetune."""
    measured = families.get(LARGE, {}).get("upcycling")
    if measured is None:
        return None
    budgets = list(measured["nexus"])[:1] + list(measured["nexus"])[-1:]
    if not budgets:
        return None
    plot = Figure(figsize=(10, 4.5))
    for axes, budget in zip(plot.subplots(1, 2), budgets, strict=True):
        routing = measured["nexus"][budget]["routing"]
        shares = np.array(list(routing.values()))
        _heatmap(axes, shares, list(routing), title=f"after {int(budget):,} tokens")
    plot.tight_layout()
    return plot


def _similarity(families: Figures) -> Figure | None:
    """Plot the similarity of domains before the projection and after it."""
    measured = families.get(LARGE, {}).get("similarity")
    if measured is None:
        return None
    maps = measured["cosines"]
    plot = Figure(figsize=(5 * len(maps), 4.5))
    for axes, (title, cosines) in zip(plot.subplots(1, len(maps)), maps.items(), strict=True):
        _heatmap(axes, np.array(cosines), measured["domains"], title=title)
    plot.tight_layout()
    return plot


def _heatmap(axes: Axes, values: NDArray[np.float64], names: Sequence[str], *, title: str) -> None:
    """Draw shares or cosines [N, N], in percent."""
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
    """Plot the share of the gain of each method without training."""
    measured = families.get(LARGE, {}).get("upcycling")
    if measured is None:
        return None
    shares = {}
    for name, method in measured.items():
        figures = method if "share_of_gain" in method else method.get("0")
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
    """Plot attention experts and averaged attention after the same training."""
    measured = small_llamas(families, "attention", "-parallel")
    if not measured:
        return None
    methods = list(measured[0]["equal data"])
    plot = Figure(figsize=(7, 3.5))
    axes = plot.subplots()
    for offset, kind in ((-0.2, "equal data"), (0.2, "equal compute")):
        means = [
            np.exp(np.mean([seed[kind][name]["mean_log_perplexity"][0] for seed in measured]))
            for name in methods
        ]
        axes.barh(np.arange(len(methods)) + offset, means, height=0.38, label=kind)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("held-out perplexity, geometric mean over domains")
    axes.legend(fontsize=8)
    return plot
