"""A comparison of two models on the terminal."""

import pytest

from engine.divergence.metrics import Continuation, Reading
from engine.gates import comparison_gate
from engine.gates.comparison_gate import DivergenceReport, DomainReadings, ModelPolicy, Side
from service.terminal import divergence_tables

TOKENS = (1, 2, 3, 4)
AGREES, STRAYS = Reading(TOKENS, (-0.1,) * 4), Reading((1, 2, 9, 4), (-0.1,) * 4)


def report(*readings: Reading) -> DivergenceReport:
    texts = [Continuation((7, 8), TOKENS, margins=(1.0, 1.0, 0.25, 1.0))] * len(readings)
    own = [AGREES] * len(readings)
    compared = DomainReadings(
        domain="law", continuations=texts, variations={"in one pass": own}, candidate=readings
    )
    return comparison_gate.judge(
        ModelPolicy(completion_tokens=4),
        reference=Side(name="seed", digest="s" * 64),
        candidate=Side(name="mine@1", digest="m" * 64),
        domains=[compared],
        decode=lambda tokens: " ".join(map(str, tokens)),
    )


def test_each_domain_is_shown_with_its_noise_floor(capsys: pytest.CaptureFixture[str]) -> None:
    divergence_tables.print_report(report(AGREES, AGREES))
    out = capsys.readouterr().out
    assert "mine@1 against seed: kept" in out
    law, floor = (line for line in out.splitlines() if "100.00%" in line)
    assert "4.0, 4.0, 4.0" in law
    assert "noise floor" in floor


def test_a_missed_limit_is_shown_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    divergence_tables.print_report(report(AGREES, STRAYS))
    out = capsys.readouterr().out
    assert "not kept  law: equal_share is 0.875, at least 0.99 is required" in out
    assert "law 1, token 2, margin 0.25: '7 8 1 2' '3' '9'" in out
    assert "3.0 (2.0 to 4.0)" in out


def test_brackets_in_a_text_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    [domain] = report(STRAYS).domains
    example = domain.examples[0].model_copy(update={"context": "[/red] a[0]"})
    shown = report(STRAYS).model_copy(
        update={"domains": (domain.model_copy(update={"examples": (example,)}),)}
    )
    divergence_tables.print_report(shown)
    assert "[/red] a[0]" in capsys.readouterr().out
