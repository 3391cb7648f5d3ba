"""A comparison as a page: curves, and both sides of each divergence."""

from service.reports import divergence_page
from tests.service.terminal.test_divergence_tables import AGREES, STRAYS, report


def test_curves_fall_at_divergences() -> None:
    page = divergence_page.html(report(AGREES, STRAYS))
    # Two texts of four tokens, one diverges at the third: the curve falls to one half.
    assert "M0,0 H0.00 V0.00 H50.00 V0.00 H100.00 V50.00 H150.00 V50.00 H200" in page
    assert "50 % of the texts never diverge, of the noise floor's 100 %" in page
    assert "not kept" in page


def test_both_sides_of_a_divergence_are_shown() -> None:
    page = divergence_page.html(report(STRAYS))
    assert "<pre>…7 8 1 2<ins>3</ins></pre>" in page
    assert "<pre>…7 8 1 2<del>9</del></pre>" in page


def test_equal_models_have_no_examples() -> None:
    page = divergence_page.html(report(AGREES))
    assert "where the models diverge" not in page
    assert "<del>" not in page
