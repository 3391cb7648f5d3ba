"""Make the table of general text: perplexity on text of no expert's domain, over the seed's."""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.claims.families.windows import GENERAL
from tests.benchmarks.harness import markdown

Figures = Mapping[str, Any]


def of(upcycled: Figures | None) -> str | None:
    """Return the table from the figures of upcycling of one family; None without any."""
    if upcycled is None:
        return None
    seed = upcycled["seed"]["perplexity"][GENERAL]
    budgets = sorted({b for figures in upcycled.values() for b in _mixes(figures)}, key=int)
    rows = []
    for name, figures in upcycled.items():
        if "perplexity" in figures:
            if not name.startswith("expert ") and name != "right expert":
                rows.append([name, _cell(figures, seed), *[""] * (len(budgets) - 1)])
        elif figures:
            rows.append([name, *(_cell(figures.get(budget), seed) for budget in budgets)])
    head = ["0" if budget == "0" else f"{int(budget):,} tokens" for budget in budgets]
    return markdown.table(["perplexity on general text (over the seed's)", *head], rows)


def _mixes(figures: Figures) -> Figures:
    """Return the figures of a method by budget; empty for a network without one."""
    return {} if "perplexity" in figures else figures


def _cell(figures: Figures | None, seed: float) -> str:
    if figures is None:
        return "–"
    value = figures["perplexity"][GENERAL]
    return f"{value:.2f} ({value / seed:.3f})"
