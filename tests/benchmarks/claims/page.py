"""CLAIMS.md: prose that is written by hand, around tables that are made from the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import markdown
from tests.benchmarks.claims import tables

PAGE = Path(__file__).parents[3] / "CLAIMS.md"


def renewed(page: str, families: Mapping[str, Any]) -> str:
    """The page with its tables as the results have them."""
    return markdown.filled(page, tables.of(families))
