"""Compare figures on pages with the committed results that they name.

A source is `FILE.json EXPRESSION`, with JMESPath expressions; see the page "Writing documentation".
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jmespath

from tests.docs.pages import ROOT, SITE, Block, Prose, generated_tables

RESULTS = ROOT / "tests" / "benchmarks" / "results"

NUMBER = r"[-−+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-−+]?\d+(?:\.\d+)?"
# A number is no figure inside a word (int8, SmolLM2-135M), a date or a reference.
FIGURE = re.compile(rf"(?<![\w.,/@-])(?:{NUMBER})(?![\w])")
NO_FIGURES = re.compile(
    r"""
    `[^`]*` | <!--.*?--> | (?<=\])\([^)]*\) | https?://\S+   # code, comments, targets of links
    | \d{4}-\d{2}-\d{2} | \d{1,2}\ [A-Z][a-z]+\ \d{4}        # dates
    | arXiv[ :]\S+ | \b(?:section|table|figure|chapter|RFC|page)\ [\d.]+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
CODE = re.compile(r"`[^`]*`")
INLINE = re.compile(
    rf"(?P<number>{NUMBER})(?P<between>[^\d<]*)<!-- figure: (?P<source>.+?) -->", re.DOTALL
)
# Marks of paragraphs whose figures come from no committed result.
WITHOUT_RESULT = ("set-up", "paper", "not committed")
# A number with a unit of measurement needs a source on all pages.
MEASURED = re.compile(
    rf"(?:{NUMBER})\s?(?:%|×|(?:s|ms|seconds|minutes|hours|MB|GB|GiB|tokens a second|times)\b)"
)
MARK = re.compile(r"<!-- figures: (?P<sources>.+?) -->", re.DOTALL)
SOURCE = re.compile(
    r"(?P<file>\S+\.json) (?P<first>.+?)"
    r"(?: (?P<operator>[/-]) (?P<second>.+?))?(?: in (?P<unit>\w+))?"
)
UNITS = {
    "percent": 0.01,
    "thousands": 1e3,
    "millions": 1e6,
    "billions": 1e9,
    "milliseconds": 1e-3,
    "minutes": 60.0,
    "hours": 3600.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}


@dataclass(frozen=True)
class Inline:
    """A number in a sentence and its source."""

    number: str
    source: str


def inline(text: str) -> list[Inline]:
    """Return the numbers in a text that have a source directly after them."""
    return [Inline(match["number"], match["source"]) for match in INLINE.finditer(text)]


def numbers(text: str) -> list[str]:
    """Return the figures of a text as printed, without numbers in code and links."""
    return [match.group() for match in FIGURE.finditer(NO_FIGURES.sub(" ", text))]


def measurements(text: str) -> list[str]:
    """Return the numbers of a text with a unit of measurement."""
    return MEASURED.findall(NO_FIGURES.sub(" ", text))


def problems_with(prose: Prose, page: Path) -> Iterator[str]:
    """Yield the figures that differ from their sources."""
    text = CODE.sub("", prose.text)
    for figure in inline(text):
        value = evaluate(figure.source)
        if not agrees(figure.number, value):
            yield f"{figure.number} is printed, {figure.source} is {value}"
    for match in MARK.finditer(text + prose.marks):
        yield from _not_in(text, match["sources"], page)


def problems_with_output(block: Block) -> Iterator[str]:
    """Yield the numbers of an output block that are not in the result named above it."""
    for match in MARK.finditer(block.comment):
        known = list(_numbers_in(_result(match["sources"])))
        for number in numbers(block.code):
            # Outputs print shares as percentages.
            if not any(agrees(number, value) or agrees(number, value * 100) for value in known):
                yield f"{number} does not stand in {match['sources']}"


def has_source(prose: Prose) -> bool:
    """Return whether a paragraph names a source for its figures."""
    text = CODE.sub("", prose.text)
    return bool(inline(text) or MARK.search(text + prose.marks))


def evaluate(source: str) -> Any:
    """Return the value of a source in its unit. Raises ValueError for a wrong source."""
    match = SOURCE.fullmatch(source)
    if match is None:
        raise ValueError(f"{source!r} is not: FILE.json EXPRESSION")
    first = _find(match["file"], match["first"])
    if match["operator"]:
        second = _find(match["file"], match["second"])
        first = first / second if match["operator"] == "/" else first - second
    return first / UNITS[match["unit"]] if match["unit"] else first


def agrees(number: str, value: Any) -> bool:
    """Return whether a printed number is the value, rounded to the printed digits."""
    if isinstance(value, str):
        return _plain(number) in map(_plain, numbers(value))
    printed = float(_plain(number))
    decimals = len(number.partition(".")[2])
    # Zeros at the end may be rounded digits: 49,152 may be printed as 49,000.
    zeros = 0 if "." in number else len(number) - len(number.rstrip("0").rstrip(","))
    return any(
        math.isclose(printed, round(value, decimals - less), rel_tol=1e-9, abs_tol=1e-12)
        for less in range(zeros + 1)
    )


def _not_in(text: str, sources: str, page: Path) -> Iterator[str]:
    """Yield the numbers of a text that are in none of its sources."""
    known: set[str] = set()
    for source in sources.split(", "):
        if source in WITHOUT_RESULT:
            return
        if source.startswith("set-up "):
            known |= set(map(_plain, source.split()[1:]))
        else:
            known |= set(map(_plain, numbers(_table(source, page))))
    unknown = [number for number in numbers(text) if _plain(number) not in known]
    inline_numbers = {_plain(figure.number) for figure in inline(text)}
    for number in unknown:
        if _plain(number) not in inline_numbers:
            yield f"{number} does not stand in {sources}"


def _table(source: str, page: Path) -> str:
    """Return the generated table `table NAME` of a page, or `PAGE.md table NAME` of a result."""
    match = re.fullmatch(r"(?:(?P<page>[\w-]+\.md) )?table (?P<name>[\w-]+)", source)
    if match is None:
        raise ValueError(f"{source!r} is not: table NAME")
    owner = SITE / "results" / match["page"] if match["page"] else page
    return generated_tables(owner)[match["name"]]


def _numbers_in(result: Any) -> Iterator[float]:
    if isinstance(result, dict | list):
        for value in result.values() if isinstance(result, dict) else result:
            yield from _numbers_in(value)
    elif isinstance(result, str):
        yield from (float(_plain(number)) for number in numbers(result))
    elif isinstance(result, int | float):
        yield result


def _find(file: str, expression: str) -> Any:
    value = jmespath.search(expression, _result(file))
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{file} {expression} is {value!r}, not a number or a text")
    return value


@cache
def _result(file: str) -> Any:
    return json.loads((RESULTS / file).read_text())


def _plain(number: str) -> str:
    return number.replace(",", "").replace("−", "-").lstrip("+")
