"""The metrics of a gate report as rows."""

from service.reports.gate_rows import EMPTY, gate_rows
from tests.service.gate_reports import make_divergent_report


def test_a_domain_without_a_metric_has_an_empty_cell() -> None:
    rows = {row.name: row for row in gate_rows(make_divergent_report())}
    row = rows["base.perplexity_ratio"]
    assert row.limit == "at most 1.1"
    assert [cell.text for cell in row.cells] == ["1.071", EMPTY]


def test_rows_follow_the_order_of_the_stages() -> None:
    stages = [row.name.partition(".")[0] for row in gate_rows(make_divergent_report())]
    assert list(dict.fromkeys(stages)) == ["assembled", "candidate", "served", "base"]


def test_a_missed_limit_is_marked() -> None:
    rows = {row.name: row for row in gate_rows(make_divergent_report())}
    assert [cell.kept for cell in rows["served.equal_share"].cells] == [False, False]
