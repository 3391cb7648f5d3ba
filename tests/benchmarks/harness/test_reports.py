"""A result of a benchmark has its figures, and reports every bar that is not held."""

import json
from pathlib import Path

import pytest

from service.demo.bars import Bar
from tests.benchmarks.harness import reports


@pytest.mark.parametrize(("value", "status"), [(0.1, 0), (0.3, 1), (float("nan"), 1)])
def test_a_broken_bar_is_the_exit_status(tmp_path: Path, value: float, status: int) -> None:
    path = tmp_path / "new" / "result.json"
    bars = [Bar("time", value, "<=", 0.2)]
    figures = {"seconds": reports.summary([3.0, 1.0, 2.00049])}
    assert reports.write(path, figures=figures, bars=bars, packages=["numpy"]) == status
    result = json.loads(path.read_text())
    assert result["seconds"] == {"median": 2.0, "runs": [3.0, 1.0, 2.0]}
    assert result["held"] is (status == 0)
    assert result["machine"]["cores"] >= 1
    assert result["versions"]["numpy"]


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        ([], reports.RESULTS / "gate.json"),
        (["--quick"], reports.QUICK_RESULTS / "gate.json"),
        (["--quick", "--output", "mine.json"], Path("mine.json")),
    ],
)
def test_a_quick_run_does_not_replace_a_committed_result(argv: list[str], output: Path) -> None:
    chosen = reports.chosen(reports.options("gate", "a test"), argv)
    assert chosen.output == output
    assert set(vars(chosen)) == {"quick", "output"}


def test_benchmarks_choose_their_output_here() -> None:
    folder = reports.RESULTS.parent
    texts = {path: path.read_text() for path in folder.rglob("*.py")}
    having = {path for path, text in texts.items() if "= reports.options(" in text}
    assert having
    assert not {path for path in having if "reports.chosen(parser, argv)" not in texts[path]}
