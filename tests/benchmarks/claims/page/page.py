"""Renew the results page "claims": text by hand, tables from the result."""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.claims.page import tables
from tests.benchmarks.harness import markdown

PAGE = markdown.PAGES / "claims.md"


def renewed(page: str, families: Mapping[str, Any]) -> str:
    """Return the page with its tables generated again."""
    sources = markdown.sources({"claims": "./nexusmix bench claims"})
    return markdown.filled(page, tables.of(families) | {"sources": sources})
