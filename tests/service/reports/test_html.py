"""Filters of templates, and escaping."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from service.reports import html


def rendered(folder: Path, template: str, **context: object) -> str:
    (folder / "page.html").write_text(template)
    return html.environment([folder]).get_template("page.html").render(context)


def test_filters(tmp_path: Path) -> None:
    template = "{{ n|size }} {{ n|count }} {{ n|thousands }} {{ 61|duration }} {{ at|moment }}"
    at = datetime(2026, 12, 1, 9, 30, tzinfo=UTC)
    expected = "2 kB 2 k 2,000 1 min 01 s 1 Dec 2026, 09:30 UTC"
    assert rendered(tmp_path, template, n=2000, at=at) == expected


def test_data_is_no_markup(tmp_path: Path) -> None:
    assert rendered(tmp_path, "{{ text }}", text="<b>") == "&lt;b&gt;"


def test_a_missing_variable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError):
        rendered(tmp_path, "{{ text }}")


@pytest.mark.parametrize(
    ("state", "tone"),
    [("ready", "good"), ("failed", "bad"), ("queued", "quiet"), ("finetuning", "busy")],
)
def test_states_have_tones(state: str, tone: str) -> None:
    assert html.tone(state) == tone
