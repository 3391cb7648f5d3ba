"""The gate report of a mix as a page."""

from html.parser import HTMLParser

from service.reports import gate_page
from tests.service.gate_reports import DIGEST, make_divergent_report, make_report


class _Links(HTMLParser):
    """Collects what a page loads or links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


def test_every_stage_shows_both_sides_of_a_divergence() -> None:
    page = gate_page.html(make_divergent_report(), ref="mine@2", digest=DIGEST)
    assert "Gate of mine@2" in page
    # One divergence of the served model in each domain, two of the base in its only domain.
    assert page.count("<pre>…7 8 1 2<ins>3</ins></pre>") == 4
    assert page.count("<del>9</del>") == 4
    assert page.count("<svg") == 3
    assert page.count("the candidate preferred its own by 0.25 nats") == 4
    assert "What the finetune moved" not in page


def test_the_page_loads_nothing() -> None:
    parser = _Links()
    parser.feed(gate_page.html(make_divergent_report(), ref="mine@2", digest=DIGEST))
    assert parser.loaded == []


def test_a_failure_names_its_first_divergence() -> None:
    report = make_divergent_report()
    page = gate_page.html(report, ref="mine@2", digest=DIGEST)
    assert not report.passed
    assert "sea: served.equal_share is 0.875, at least 0.99 is required" in page
    assert "prompt 1 diverges first, at token 2" in page


def test_a_finetune_has_its_own_section() -> None:
    report = make_report(assembled=(50.0, 50.0), finetuned=(30.0, 40.0))
    page = gate_page.html(report, ref="mine@1", digest=DIGEST)
    assert "What the finetune moved" in page
    assert "Against the version before" not in page
