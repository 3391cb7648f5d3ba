"""Make the table of averages of attention from the results, in Markdown."""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.harness import markdown

# SmolLM2 whose experts had all parameters trained, at a low and at a high rate.
MILD, STRONG = "smollm2-135m-all-mild", "smollm2-135m-all-strong"


def of(families: Mapping[str, Any]) -> str | None:
    """Return the table, or None if nothing was measured."""
    measured = {n: families[n]["attention"] for n in (MILD, STRONG) if n in families}
    if not measured:
        return None
    first = next(iter(measured.values()))
    networks = ("merge", "right expert")
    rows = [[name, *(_share(of[name]) for of in measured.values())] for name in networks]
    rows += [
        [f"{name}, {kind}", *(_share(of[kind][name]) for of in measured.values())]
        for kind in ("assembled", "by the label")
        for name in first[kind]
    ]
    return markdown.table(["share of the gain, %", *measured], rows)


def _share(figures: Mapping[str, Any]) -> str:
    """Return the share with its interval over text."""
    value, low, high = (f"{100 * x:z.0f}" for x in figures["share_of_gain"])
    return f"{value} [{low}, {high}]"
