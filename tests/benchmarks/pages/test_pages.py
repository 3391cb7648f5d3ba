"""The results pages show the committed results."""

import pytest

from tests.benchmarks.pages import pages


@pytest.mark.parametrize("name", pages.TABLES)
def test_the_tables_are_those_of_the_results(name: str) -> None:
    assert pages.renewed(name) == pages.path(name).read_text()
