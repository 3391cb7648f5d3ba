"""DIVERGENCE.md tells what the results have."""

from pathlib import Path

from tests.benchmarks.divergence_page import page, plots


def test_the_page_has_the_tables_of_the_results() -> None:
    text = page.PAGE.read_text()
    assert page.renewed(text, page.results()) == text


def test_every_plot_that_the_page_shows_is_made(tmp_path: Path) -> None:
    plots.write(page.results(), tmp_path)
    for path in tmp_path.iterdir():
        assert f"divergence/{path.name})" in page.PAGE.read_text()
