"""Tables in Markdown, and pages of prose that is written by hand around tables that are made."""

import re
from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables; each stands between two marks that name it. What has no figures
    yet says so."""

    def with_marks(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table {name} -->\n{tables.get(name, 'not measured yet')}\n<!-- end -->"

    return re.sub(
        r"<!-- table (?P<name>[\w-]+) -->.*?<!-- end -->", with_marks, page, flags=re.DOTALL
    )
