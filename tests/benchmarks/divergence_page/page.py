"""DIVERGENCE.md: prose that is written by hand, around tables that are made from the results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import markdown, reports
from tests.benchmarks.divergence_page import tables

PAGE = Path(__file__).parents[3] / "DIVERGENCE.md"
NAMES = ("divergence", "gate", "perturbation", "compression", "sparsity", "serving", "faults")


def results() -> dict[str, Any]:
    """Those that there are, by the name of their benchmark."""
    paths = {name: reports.RESULTS / f"{name}.json" for name in NAMES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def renewed(page: str, found: Mapping[str, Any]) -> str:
    """The page with its tables as the results have them."""
    return markdown.filled(page, tables.of(found))
