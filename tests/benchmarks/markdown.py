"""Markdown tables, and pages whose prose is written by hand around generated tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "pages" / "results"
PLOTS = PAGES / "plots"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with its tables replaced; two marks around each table name it.

    A table without figures becomes "not measured yet".
    """

    def with_marks(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table {name} -->\n{tables.get(name, 'not measured yet')}\n<!-- end -->"

    return re.sub(
        r"<!-- table (?P<name>[\w-]+) -->.*?<!-- end -->", with_marks, page, flags=re.DOTALL
    )
