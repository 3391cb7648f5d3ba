"""Draw plots of the results of compression as small SVG files."""

import math
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tests.benchmarks.divergence_page.cells import Figures
from tests.benchmarks.divergence_page.int8_tables import WAYS

# Equal figures give equal bytes.
matplotlib.rcParams["svg.hashsalt"] = "nexusmix"
matplotlib.rcParams["svg.fonttype"] = "none"

MAX_COLUMNS = 3


def write(results: Figures, folder: Path) -> None:
    """Write every plot whose results exist."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"int8": ("compression", _int8), "sparsity": ("sparsity", _sparsity)}
    for name, (source, make) in makers.items():
        if source in results:
            plot = make(results[source])
            plot.tight_layout()
            plot.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _int8(result: Figures) -> Figure:
    """Plot mean FDT against size, by method of choice."""
    subjects = result["subjects"]
    columns = min(len(subjects), MAX_COLUMNS)
    rows = math.ceil(len(subjects) / columns)
    plot = Figure(figsize=(4 * columns, 3.5 * rows))
    for position, (name, subject) in enumerate(subjects.items(), start=1):
        axes = plot.add_subplot(rows, columns, position)
        for way, title in WAYS.items():
            points = [subject["ends"]["none"], *subject["curves"][way], subject["ends"]["all"]]
            axes.plot(
                [point["num_bytes"] / 1e6 for point in points],
                [point["fdt_mean"] for point in points],
                marker="o",
                markersize=3,
                label=title,
            )
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("MB")
        axes.set_ylabel("mean FDT, tokens")
        axes.legend(fontsize=7)
    return plot


def _sparsity(result: Figures) -> Figure:
    """Plot perplexity and mean FDT against the share of zeros, by method of choice."""
    subjects = result["subjects"]
    plot = Figure(figsize=(4 * len(subjects), 6.5))
    grid = plot.subplots(2, len(subjects), squeeze=False)
    for column, (name, subject) in enumerate(subjects.items()):
        for row, (figure, title) in enumerate(
            {"perplexity": "perplexity of held-out text", "fdt_mean": "mean FDT, tokens"}.items()
        ):
            axes = grid[row, column]
            for way, points in subject["curves"].items():
                axes.plot(
                    [100 * point["share"] for point in points],
                    [point[figure] for point in points],
                    marker="o",
                    markersize=3,
                    linestyle="--" if way.startswith("uniform") else "-",
                    label=way.replace("uniform", "equal shares").replace("fdt", "chosen by FDT"),
                )
            if figure == "perplexity":
                axes.axhline(subject["none"][figure], color="grey", linewidth=0.8)
                axes.set_yscale("log")
            axes.set_xlabel("zeros, %")
            axes.set_ylabel(title)
            axes.legend(fontsize=7)
        grid[0, column].set_title(name, fontsize=9)
    return plot
