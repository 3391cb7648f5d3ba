"""The metrics of a gate report on the terminal."""

import pytest

from service.terminal.gate_tables import print_metrics
from tests.service.gate_reports import make_divergent_report


def test_every_metric_is_printed_with_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(make_divergent_report())
    out = capsys.readouterr().out
    assert "served.fdt_25" in out
    assert "at least 0.99" in out
