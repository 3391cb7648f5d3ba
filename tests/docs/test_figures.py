"""Tests of figures on pages: they equal the committed results that they name."""

from pathlib import Path

import pytest

from tests.docs import figures, pages
from tests.docs.figures import agrees, evaluate, inline, measurements, numbers
from tests.docs.pages import Block, Prose


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_figures_equal_their_results(page: Path) -> None:
    problems = [
        f"{pages.name(page)}:{prose.line}: {problem}"
        for prose in pages.prose(page)
        for problem in figures.problems_with(prose, page)
    ]
    problems += [
        f"{pages.name(page)}:{block.line}: {problem}"
        for block in pages.blocks(page)
        for problem in figures.problems_with_output(block)
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_every_figure_names_its_source(page: Path) -> None:
    is_result = page.is_relative_to(pages.SITE / "results")
    without = [
        f"{pages.name(page)}:{prose.line}: {prose.text[:60]}"
        for prose in pages.prose(page)
        if (numbers(prose.text) if is_result else measurements(prose.text))
        and not figures.has_source(prose)
    ]
    assert not without, "\n".join(without)


def test_a_number_with_a_unit_is_a_measurement() -> None:
    text = "92 % in 8.4 minutes with 3 GB, 1.9 times; 6 experts, `5 s`, section 3 and 2 days."
    assert measurements(text) == ["92 %", "8.4 minutes", "3 GB", "1.9 times"]


def test_code_dates_references_and_names_are_no_figures() -> None:
    text = (
        "On 2026-11-24 SmolLM2-135M in int8 (arXiv 2311.01544, section 3.2, [page 4](x5.md#6))"
        " with `top 7` reached 92 % and 1,024 tokens."
    )
    assert numbers(text) == ["92", "1,024"]


@pytest.mark.parametrize(
    ("number", "value", "agreeing"),
    [
        ("8.4", 8.44, True),
        ("8.5", 8.44, False),
        ("1,024", 1024, True),
        ("49,000", 49152, True),
        ("48,000", 49152, False),
        ("25.3", "held-out perplexity 56.8 -> 25.3", True),
        ("25.4", "held-out perplexity 56.8 -> 25.3", False),
    ],
)
def test_a_rounded_number_agrees_with_its_value(
    number: str, value: float | str, agreeing: bool
) -> None:
    assert agrees(number, value) == agreeing


def test_a_source_is_an_expression_with_a_unit() -> None:
    seconds = evaluate("demo.json seconds")
    assert evaluate("demo.json seconds in minutes") == pytest.approx(seconds / 60)
    assert evaluate("demo.json stages[0].seconds / seconds in percent") < 100
    with pytest.raises(ValueError, match="not a number"):
        evaluate("demo.json nothing")


def test_a_number_in_a_sentence_is_found_with_its_unit() -> None:
    [figure] = inline("It takes 8.4 minutes<!-- figure: demo.json seconds in minutes --> here.")
    assert (figure.number, figure.source) == ("8.4", "demo.json seconds in minutes")


def test_a_number_that_is_not_in_its_table_is_a_problem(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table sizes -->\n| 92 |\n| --- |\n<!-- end -->\n")
    mark = "<!-- figures: table sizes, set-up 16 -->"
    right, wrong = (Prose(f"{number} % of 16.", mark, 1, "") for number in (92, 93))
    assert list(figures.problems_with(right, page)) == []
    [problem] = figures.problems_with(wrong, page)
    assert problem.startswith("93 does not stand in")


def test_a_number_in_an_output_that_is_not_in_its_result_is_a_problem() -> None:
    seconds = evaluate("demo.json seconds")
    comment = "<!-- figures: demo.json -->"
    right, wrong = (
        Block("text", f"It took {value:.1f} s", 1, None, None, comment)
        for value in (seconds, 1e6 / 7)
    )
    assert list(figures.problems_with_output(right)) == []
    assert list(figures.problems_with_output(wrong)) == ["142857.1 does not stand in demo.json"]
