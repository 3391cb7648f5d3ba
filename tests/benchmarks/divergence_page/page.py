"""The results page "divergence": prose written by hand around tables generated from results."""

import json
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.divergence_page import tables
from tests.benchmarks.harness import markdown, reports

PAGE = markdown.PAGES / "divergence.md"
NAMES = ("divergence", "gate", "perturbation", "compression", "sparsity", "serving", "faults")
COMMANDS = {name: f"./nexusmix bench {name}" for name in NAMES}


def results() -> dict[str, Any]:
    """Return the committed results, keyed by the name of their benchmark."""
    paths = {name: reports.RESULTS / f"{name}.json" for name in NAMES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def renewed(page: str, by_benchmark: Mapping[str, Any]) -> str:
    """Return the page with its tables generated again."""
    sources = markdown.sources({name: COMMANDS[name] for name in by_benchmark})
    return markdown.filled(page, tables.of(by_benchmark) | {"sources": sources})
