"""Pieces of Markdown that the reference pages are made of."""

from collections.abc import Iterable, Sequence


def page(*parts: str) -> str:
    """Return the parts with an empty line between them and one line end behind the last."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def paragraph(text: str) -> str:
    """Return a docstring or description as Markdown: one line for each of its paragraphs."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in paragraphs)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(text: object) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
