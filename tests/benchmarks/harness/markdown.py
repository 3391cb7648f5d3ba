"""Write tables in Markdown, and fill them into pages whose prose is written by hand."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import reports

PAGES = Path(__file__).parents[3] / "docs" / "pages" / "results"
PLOTS = PAGES / "plots"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with its tables replaced; two marks around each table name it.

    A table without figures becomes "not measured yet".
    """

    def with_marks(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table {name} -->\n{tables.get(name, 'not measured yet')}\n<!-- end -->"

    return re.sub(
        r"<!-- table (?P<name>[\w-]+) -->.*?<!-- end -->", with_marks, page, flags=re.DOTALL
    )


def result(name: str) -> dict[str, Any]:
    """Return a committed result by the name of its benchmark."""
    content: dict[str, Any] = json.loads((reports.RESULTS / f"{name}.json").read_text())
    return content


def sources(commands: Mapping[str, str]) -> str:
    """Return the table that says where results come from: command, day, machine and packages.

    `commands` are keyed by the name of the result.
    """
    head = ("result", "command", "day", "processor", "cores", "packages")
    return table(head, [_source(name, command) for name, command in commands.items()])


def _source(name: str, command: str) -> list[str]:
    content = result(name)
    machine = content["machine"]
    instructions = ", ".join(machine["vector_instructions"]).replace("_", "-")
    # In the result of `lifecycle` this field has mixes as well.
    versions = {key: value for key, value in content["versions"].items() if isinstance(value, str)}
    return [
        f"`{name}.json`",
        f"`{command}`",
        content["date"].partition("T")[0],
        f"{machine['processor']} with {instructions}",
        str(machine["cores"]),
        ", ".join(f"{key} {value}" for key, value in versions.items() if key != "nexusmix")
        or "not in the result",
    ]
