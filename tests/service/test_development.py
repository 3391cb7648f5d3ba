"""Chores: what can be run by name."""

import pytest

from registry.errors import NotFound
from service import development


def test_benchmarks_are_those_that_can_be_run() -> None:
    names = development.benchmarks()
    assert "assembly" in names
    assert not {"__init__", "reports", "processes"} & set(names)


def test_an_unknown_benchmark_is_told_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="there are assembly"):
        development.bench("assambly", [])
