"""Tests of the list of benchmarks: it is complete, and every name has a module."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from registry.errors import NotFound
from tests.benchmarks import BENCHMARKS
from tests.chores import ROOT, benchmarks


def has_main(path: Path) -> bool:
    """Return whether a module has a `main(argv)`; child processes have other arguments."""
    body = ast.parse(path.read_text()).body
    mains = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return any(node.args.args[:1] and node.args.args[0].arg == "argv" for node in mains)


def test_the_list_has_exactly_the_benchmarks_that_can_be_run() -> None:
    folder = ROOT / "tests" / "benchmarks"
    paths = [path for path in folder.rglob("*.py") if has_main(path)]
    entries = ("__main__.py", "benchmark.py")
    runnable = {path.parent if path.name in entries else path for path in paths}
    assert sorted(path.stem.replace("_", "-") for path in runnable) == sorted(BENCHMARKS)
    assert all(find_spec(benchmarks.module(name)) for name in BENCHMARKS)


def test_an_unknown_benchmark_is_refused_with_the_known_names() -> None:
    with pytest.raises(NotFound, match="there are admission, assembly"):
        benchmarks.run("assambly", [])
