"""CLAIMS.md: prose that is written by hand, around tables that are made from the results."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.claims import tables

PAGE = Path(__file__).parents[3] / "CLAIMS.md"


def renewed(page: str, families: Mapping[str, Any]) -> str:
    """The page with its tables as the results have them; each stands between two marks that name
    it. A table without results stays empty."""
    made = tables.of(families)

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table {name} -->\n{made.get(name, 'not measured yet')}\n<!-- end -->"

    return re.sub(r"<!-- table (?P<name>[\w-]+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)
