"""The results page "divergence" shows the committed results."""

import re
from pathlib import Path

from tests.benchmarks.divergence_page import page, plots


def test_the_page_has_the_tables_of_the_results() -> None:
    text = page.PAGE.read_text()
    assert page.renewed(text, page.results()) == text


def test_the_page_shows_every_plot_and_no_other(tmp_path: Path) -> None:
    plots.write(page.results(), tmp_path)
    shown = re.findall(r"plots/divergence/([\w-]+\.svg)", page.PAGE.read_text())
    assert sorted(shown) == sorted(path.name for path in tmp_path.iterdir())
