"""Writes a comparison of two models as one HTML file that loads no other file."""

from engine.gates.comparison_gate import DivergenceReport
from service.reports.html import render


def html(report: DivergenceReport) -> str:
    """Return the page, with survival curves and the places where the two models diverge."""
    return render("divergence.html", report=report)
