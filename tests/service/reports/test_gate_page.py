"""The gate report of a mix as a page of its own, and its metrics as a table."""

from html.parser import HTMLParser

import pytest

from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading
from engine.gates.mix_gate import GateReport, Measurements, Perplexities, Sides, judge
from engine.gates.policy import Policy, ServedLimits, Stage
from service.reports import gate_page
from service.terminal import gate_tables
from tests.service.gate_reports import make_report

TOKENS = (1, 2, 3, 4)
AGREES, STRAYS = Reading(TOKENS, (-0.1,) * 4), Reading((1, 2, 9, 4), (-0.1,) * 4)
DIGEST = "ab" * 32


class _Links(HTMLParser):
    """What a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def strays() -> GateReport:
    """Of two domains, of which the version before has one; the served model parts in both."""
    readings: dict[str, dict[Stage, list[Reading]]] = {
        "sea": {"served": [AGREES, STRAYS], "base": [STRAYS, STRAYS]},
        "law": {"served": [AGREES, STRAYS]},
    }
    measured = [
        Measurements(
            domain=domain,
            documents=DIGEST,
            perplexity=Perplexities(
                seed=20, experts={"sea": 12, "law": 12}, merge=18, assembled=15, base=14
            ),
            continuations=[Continuation((7, 8), TOKENS, (0.5, 0.5, 0.25, 0.5))] * 2,
            varied={noise.IN_ONE_PASS: [AGREES] * 2},
            readings=own,
        )
        for domain, own in readings.items()
    ]
    sides = Sides(candidate=DIGEST, against={"the version before": "cd" * 32})
    return judge(
        Policy(completion_tokens=4, served=ServedLimits(min_fdt_75=3)),
        manifest_digest=DIGEST,
        stages={"assembled": sides, "candidate": sides, "served": sides, "base": sides},
        domains=measured,
        decode=lambda tokens: " ".join(map(str, tokens)),
    )


def test_both_sides_stand_beside_each_other_in_every_stage(strays: GateReport) -> None:
    page = gate_page.html(strays, ref="mine@2", digest=DIGEST)
    assert "Gate of mine@2" in page
    # Once served in each domain, twice by the version before in the one it has.
    assert page.count("<pre>…7 8 1 2<ins>3</ins></pre>") == 4
    assert page.count("<del>9</del>") == 4
    assert page.count("<svg") == 3
    assert page.count("the candidate preferred its own by 0.25 nats") == 4
    assert "What the finetune moved" not in page


def test_it_needs_nothing_else(strays: GateReport) -> None:
    parser = _Links()
    parser.feed(gate_page.html(strays, ref="mine@2", digest=DIGEST))
    assert parser.loaded == []


def test_a_failure_tells_where_it_began(strays: GateReport) -> None:
    page = gate_page.html(strays, ref="mine@2", digest=DIGEST)
    assert not strays.passed
    assert "sea: served.equal_share is 0.875, at least 0.99 is required" in page
    assert "prompt 1 diverges first, at token 2" in page


def test_a_metric_that_a_domain_does_not_have_is_an_empty_cell(strays: GateReport) -> None:
    [row] = [own for own in gate_tables.rows(strays) if own.name == "base.perplexity_ratio"]
    assert row.limit == "at most 1.1"
    assert [cell.text for cell in row.cells] == ["1.071", gate_tables.NOTHING]


def test_stages_come_in_their_order(strays: GateReport, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [row.name.partition(".")[0] for row in gate_tables.rows(strays)]
    assert list(dict.fromkeys(stages)) == ["assembled", "candidate", "served", "base"]
    gate_tables.print_metrics(strays)
    out = capsys.readouterr().out
    assert "served.fdt_25" in out
    assert "at least 0.99" in out


def test_a_finetune_has_a_part_of_its_own() -> None:
    report = make_report(assembled=(50.0, 50.0), finetuned=(30.0, 40.0))
    page = gate_page.html(report, ref="mine@1", digest=DIGEST)
    assert "What the finetune moved" in page
    assert "Against the version before" not in page
