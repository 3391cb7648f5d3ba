"""The list of decisions, generated from the dated files in `docs/pages/decisions/`."""

import re
from dataclasses import dataclass
from pathlib import Path

from reference_pages import markdown

NAME = re.compile(r"(?P<date>\d{4}-\d{2}-\d{2})-[a-z0-9-]+\.md")
SUPERSEDED = re.compile(r"^Superseded by .+$", re.MULTILINE)


@dataclass(frozen=True)
class Decision:
    """`file` is the name of its page, `status` the line that names its successor or nothing."""

    file: str
    date: str
    title: str
    status: str


def found_in(folder: Path) -> list[Decision]:
    """Return the decisions of a folder, oldest first.

    Raises ValueError for a file that does not start with its title.
    """
    return [
        _read(path, match["date"])
        for path in sorted(folder.glob("*.md"))
        if (match := NAME.fullmatch(path.name))
    ]


def table(folder: Path) -> str:
    """Return the list of decisions; only a superseded one has a status."""
    rows = [(one.date, f"[{one.title}]({one.file})", one.status) for one in found_in(folder)]
    return markdown.table(("date", "decision", "status"), rows)


def _read(path: Path, date: str) -> Decision:
    content = path.read_text()
    first, _, rest = content.partition("\n")
    if not first.startswith("# "):
        raise ValueError(f"{path} must start with its title: # Title")
    status = SUPERSEDED.search(rest)
    return Decision(path.name, date, first.removeprefix("# "), status.group() if status else "")
