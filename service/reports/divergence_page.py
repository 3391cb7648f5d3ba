"""A comparison of two models as one HTML file that needs nothing else."""

from engine.gates.comparison_gate import DivergenceReport
from service.ui.rendering import render


def html(report: DivergenceReport) -> str:
    """With survival curves, and where the two parted, side by side."""
    return render("divergence.html", report=report)
