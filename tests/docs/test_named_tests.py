"""Tests that the tests which pages name exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs import pages

NAMES = re.compile(r"`(test_\w+|tests/[\w/]+\.py)`")


@cache
def functions() -> frozenset[str]:
    """Return the names of all test functions."""
    files = (pages.ROOT / "tests").rglob("test_*.py")
    return frozenset(
        name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())
    )


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = NAMES.findall(page.read_text())
    missing = [
        name for name in named if name not in functions() and not (pages.ROOT / name).exists()
    ]
    assert not missing
