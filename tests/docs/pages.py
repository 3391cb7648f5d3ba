"""Parse pages of the documentation: code blocks with their marks, paragraphs, tables.

Marks are HTML comments; `docs/pages/reference/writing-docs.md` describes them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "pages"
RUN = re.compile(r"<!-- run(?:: (?P<how>long|background|fails|verdict))? -->")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code, with the comment above it.

    `run` is None, "run", "long", "background", "fails" or "verdict". `not_run` is the reason
    against it.
    """

    language: str
    code: str
    line: int
    run: str | None
    not_run: str | None
    comment: str


@dataclass(frozen=True)
class Prose:
    """A paragraph or a table as Markdown, with the marks after it and its heading."""

    text: str
    marks: str
    line: int
    heading: str


def pages() -> list[Path]:
    """Return all pages that are written by hand."""
    front = [path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]
    return [*front, *sorted(SITE.rglob("*.md"))]


def name(page: Path) -> str:
    """Return the path of a page from the top of the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page in order."""
    return parse(page.read_text())


def parse(text: str) -> list[Block]:
    """Return the code blocks of a text in order."""
    found = []
    tokens = _tokens(text)
    for position, token in enumerate(tokens):
        if token.type != "fence":
            continue
        before = tokens[position - 1].content if position else ""
        mark = RUN.search(before)
        run = (mark["how"] or "run") if mark else None
        not_run = NOT_RUN.search(before)
        assert token.map is not None
        found.append(
            Block(
                language=token.info.strip(),
                code=token.content,
                line=token.map[0] + 1,
                run=run,
                not_run=not_run["reason"] if not_run else None,
                comment=before if before.startswith("<!--") else "",
            )
        )
    return found


def prose(page: Path) -> Iterator[Prose]:
    """Yield paragraphs and tables, each with the comment directly after it."""
    tokens = _tokens(page.read_text())
    heading, position = "", 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "heading_open":
            heading = tokens[position + 1].content
            position += 2
        elif token.type in ("paragraph_open", "table_open"):
            end = _closing(tokens, position)
            text = "\n".join(t.content for t in tokens[position:end] if t.type == "inline")
            after = [t.type for t in tokens[end + 1 : end + 3]]
            # A comment above a block of code belongs to the block.
            is_mark = after[:1] == ["html_block"] and after[1:] != ["fence"]
            marks = tokens[end + 1].content if is_mark else ""
            assert token.map is not None
            yield Prose(text, marks, token.map[0] + 1, heading)
            position = end
        position += 1


def generated_tables(page: Path) -> dict[str, str]:
    """Return the tables that benchmarks fill, as Markdown by name."""
    found = re.findall(r"<!-- table ([\w-]+) -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL)
    return dict(found)


def without_generated_tables(text: str) -> str:
    """Return the page with empty lines instead of these tables, so that line numbers stay."""
    return re.sub(
        r"<!-- table [\w-]+ -->\n.*?<!-- end -->",
        lambda match: "\n" * match.group().count("\n"),
        text,
        flags=re.DOTALL,
    )


@cache
def _tokens(text: str) -> list[Token]:
    parser = MarkdownIt("commonmark").enable("table")
    return parser.parse(without_generated_tables(text))


def _closing(tokens: list[Token], position: int) -> int:
    kind = tokens[position].type.replace("_open", "_close")
    return next(at for at in range(position, len(tokens)) if tokens[at].type == kind)
