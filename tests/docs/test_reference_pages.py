"""The generators of reference pages: fields of schemas, settings, and the list of decisions."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from reference_pages import decisions, json_schema, markdown, settings


class Inner(BaseModel):
    """Something that another model holds."""


class Outer(BaseModel):
    """A model with one field of each kind."""

    count: int = Field(ge=1, le=10_000, description="How | many.")
    share: float | None = Field(default=None, gt=0, lt=1)
    inner: Inner
    names: list[str] = Field(default=["a"], min_length=1)


def test_fields_have_types_limits_defaults_and_meanings() -> None:
    table = json_schema.fields(Outer.model_json_schema(), link=lambda name: f"[{name}](#x)")
    assert table.splitlines()[2:] == [
        "| `count` (required) | integer, ≥ 1, ≤ 10,000 |  | How \\| many. |",
        "| `share` | number, > 0, < 1 or null | `null` |  |",
        "| `inner` (required) | [Inner](#x) |  |  |",
        '| `names` | list of string, entries ≥ 1 | `["a"]` |  |',
    ]


def test_a_paragraph_of_a_docstring_is_one_line() -> None:
    assert markdown.paragraph("First\n    line.\n\n    Second.\n") == "First line.\n\nSecond."


def test_a_setting_is_a_variable_with_its_choices() -> None:
    [row] = [line for line in settings.text().splitlines() if "`NEXUSMIX_LAUNCHER`" in line]
    assert row.startswith("| `NEXUSMIX_LAUNCHER` | `local` |")
    assert row.endswith("Either `local` or `ray`. |")


def test_decisions_are_listed_by_date_with_what_superseded_them(tmp_path: Path) -> None:
    status = "Superseded by [New](2026-11-02-new.md)."
    (tmp_path / "2026-11-02-new.md").write_text("# New\n\nIn force.\n")
    (tmp_path / "2026-11-01-old.md").write_text(f"# Old\n\n{status}\n\nText.\n")
    (tmp_path / "index.md").write_text("# Decisions\n")
    assert decisions.table(tmp_path).splitlines()[2:] == [
        f"| 2026-11-01 | [Old](2026-11-01-old.md) | {status} |",
        "| 2026-11-02 | [New](2026-11-02-new.md) |  |",
    ]


def test_a_decision_needs_a_title(tmp_path: Path) -> None:
    (tmp_path / "2026-11-01-old.md").write_text("Text.\n")
    with pytest.raises(ValueError, match="must start with its title"):
        decisions.table(tmp_path)
