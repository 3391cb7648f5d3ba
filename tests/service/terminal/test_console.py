"""Tables of a finished mix on the terminal."""

import pytest

from engine.gates.report import Divergent, Failure
from service.reports.mix_comparison import MixComparison
from service.terminal import console
from tests.service.gate_reports import make_report


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
