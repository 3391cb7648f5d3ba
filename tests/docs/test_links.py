"""Tests of links on the pages at the top of the repository.

`mkdocs build --strict` checks the links of the site.
"""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs import pages

FRONT = [page for page in pages.pages() if not page.is_relative_to(pages.SITE)]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
TARGET = re.compile(r"""\]\((?P<link>[^()\s]+)\)|\b(?:src|href)="(?P<html>[^"]+)\"""")


def links(text: str) -> list[str]:
    """Return the targets of links and pictures outside code, without links to other servers."""
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", text))
    found = [match["link"] or match["html"] for match in TARGET.finditer(text)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """Return the anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problem_with(link: str, page: Path) -> str | None:
    """Return why a link of a page is broken, or None."""
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: no such file"
    if not target.is_relative_to(pages.ROOT):
        return f"{link}: outside the repository"
    if anchor and anchor not in anchors(target.read_text()):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("page", FRONT, ids=pages.name)
def test_links_lead_to_files_and_headings_of_the_repository(page: Path) -> None:
    problems = [
        problem for link in links(page.read_text()) if (problem := problem_with(link, page))
    ]
    assert problems == []


def test_links_are_found_and_headings_have_anchors() -> None:
    page = pages.ROOT / "page.md"
    text = '# Five lines\n[a](b.md#c) `[d](e)` ![f](g.svg) <img src="h.svg"> [i](https://j)\n'
    assert links(text) == ["b.md#c", "g.svg", "h.svg"]
    assert anchors(text) == {"five-lines"}
    assert problem_with("nothing.md", page) == "nothing.md: no such file"
    assert problem_with("../", page) == "../: outside the repository"
    assert problem_with("docs/pages/reference/writing-docs.md#figures", page) is None
    wrong = "docs/pages/reference/writing-docs.md#figure"
    assert problem_with(wrong, page) == f"{wrong}: no such heading"
