"""Results pages and the modules that fill their tables."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks.harness import markdown
from tests.benchmarks.pages import demo, lifecycle, memory, overview, speed

TABLES: Mapping[str, Callable[[], dict[str, str]]] = {
    "index": overview.tables,
    "demo": demo.tables,
    "lifecycle": lifecycle.tables,
    "speed": speed.tables,
    "scaling": memory.tables,
}


def path(name: str) -> Path:
    return markdown.PAGES / f"{name}.md"


def renewed(name: str) -> str:
    """Return the page with its tables generated again."""
    return markdown.filled(path(name).read_text(), TABLES[name]())
