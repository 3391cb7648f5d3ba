"""The metrics of a gate report as rows."""

from service.reports.gate_rows import EMPTY, gate_columns, gate_rows
from tests.service.gate_reports import GENERAL, make_divergent_report, make_report


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


def test_general_text_has_the_last_column() -> None:
    report = make_report(assembled=(50.0, 50.0), finetuned=(25.0, 25.0), general=GENERAL)
    assert gate_columns(report) == ["sea", "law", "general text"]
    rows = {row.name: row for row in gate_rows(report)}
    row = rows["general.perplexity_ratio_to_seed"]
    assert [cell.text for cell in row.cells] == [EMPTY, EMPTY, "1.033"]
    assert rows["candidate.perplexity_ratio_to_seed"].cells[-1].text == EMPTY
