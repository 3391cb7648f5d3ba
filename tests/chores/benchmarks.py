"""List benchmarks and run them by name."""

import sys
from collections.abc import Sequence

from registry.errors import NotFound
from tests.benchmarks import BENCHMARKS
from tests.chores import succeeds


def table() -> str:
    """Return one line for each benchmark: its name, and what it measures."""
    width = max(map(len, BENCHMARKS))
    return "\n".join(f"{name:{width}}  {about}" for name, about in BENCHMARKS.items())


def run(name: str, arguments: Sequence[str]) -> bool:
    """Run a benchmark; return whether it ended with 0. Raises NotFound for an unknown name."""
    if name not in BENCHMARKS:
        raise NotFound(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return succeeds([sys.executable, "-m", module(name), *arguments])


def module(name: str) -> str:
    """Return the module of a benchmark."""
    return f"tests.benchmarks.{name.replace('-', '_')}"
