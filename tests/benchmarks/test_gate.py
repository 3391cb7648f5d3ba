"""The benchmark of the gate runs on a tiny mix."""

import json
from pathlib import Path

from tests.benchmarks import gate


def test_a_quick_run_compares_twice_without_bars(tmp_path: Path) -> None:
    output = tmp_path / "gate.json"
    assert gate.main(["--quick", f"--output={output}"]) == 0
    comparisons = json.loads(output.read_text())["comparisons"]
    assert list(comparisons) == [gate.FIRST, gate.SECOND]
    for comparison in comparisons.values():
        assert len(comparison["domains"]) == 3
        assert comparison["seconds"] > 0
