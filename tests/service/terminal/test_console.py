"""Tables of a finished mix on the terminal, and texts that look like markup."""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.gates.report import Divergent, Failure
from service.reports.mix_comparison import MixComparison
from service.schemas.mixes import EventBody
from service.terminal import console
from tests.service.gate_reports import make_report

ROOT = Path(__file__).parents[3]
HOSTILE = "[/nope] [words] [red]x[/red] :smile: \x1b[2J"
SHOWN = "[/nope] [words] [red]x[/red] :smile: \\x1b[2J"


def test_the_base_is_shown_beside_the_mix(capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(
        assembled=(50.0, 50.0), finetuned=(30.0, 40.0), base=(25.0, 90.0), known=["sea"]
    )
    console.print_comparison(MixComparison.of(report))
    out = capsys.readouterr().out

    assert "version before" in out
    (sea,) = (line for line in out.splitlines() if "│ sea" in line)
    assert "25.00" in sea
    assert "+20.0%" in sea
    (law,) = (line for line in out.splitlines() if "│ law" in line)
    assert "new" in law


def test_texts_of_models_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    first = Divergent(
        prompt=0,
        position=3,
        margin=None,
        context="a",
        token=1,
        text="[/red]",
        predicted_token=2,
        predicted_text="[0]",
    )
    failure = Failure(
        domain="sea",
        metric="served.sdt",
        value=3,
        limit="at most",
        threshold=1,
        first=first,
    )
    report = make_report(assembled=(50.0, 50.0), finetuned=None)
    console.print_gate(report.model_copy(update={"passed": False, "failures": (failure,)}))
    assert "'[/red]' is read as '[0]'" in capsys.readouterr().out


def test_a_console_shows_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rows((HOSTILE[:7],), [(HOSTILE,)])
    with console.working(HOSTILE) as show:
        show(HOSTILE)
    out = capsys.readouterr().out

    assert "[/nope]" in out.splitlines()[0]
    assert SHOWN in out


def test_a_progress_bar_takes_any_text() -> None:
    with console.watching(HOSTILE) as show:
        show(
            EventBody(id=1, type="message", message=HOSTILE, data={}, created_at=datetime.now(UTC))
        )


def test_markup_is_switched_off_everywhere() -> None:
    """Only one function opens consoles, and whatever rich would read as markup is a `Text`."""
    found = []
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.markup":
                found.append(f"{path}: imports rich.markup")
            if isinstance(node, ast.Call):
                found += [f"{path}:{node.lineno}: {problem}" for problem in reads_markup(node)]
    here = [line for line in found if not line.startswith(str(ROOT / "service/terminal/console"))]
    assert not here
    assert len(found) == 1, "the only console is opened by `open_console`"


def reads_markup(call: ast.Call) -> Iterator[str]:
    """Yield why a call would read its text as markup."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = {keyword.arg for keyword in call.keywords}
    if name == "Console":
        yield "opens a console"
    if name == "TextColumn" and "markup" not in words:
        yield "a column reads markup"
    if name == "status" and call.args and not isinstance(call.args[0], ast.Call):
        yield "a status reads markup"


@pytest.mark.parametrize(
    "source", ["Console()", "rich.Console(stderr=True)", "TextColumn('x')", "notes.status(text)"]
)
def test_a_reader_of_markup_is_found(source: str) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert list(reads_markup(call))
