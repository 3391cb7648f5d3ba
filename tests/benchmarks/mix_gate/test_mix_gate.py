"""The benchmark of the gate runs whole on a tiny mix, with real engines."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.mix_gate import benchmark


@pytest.mark.long
def test_a_quick_run_judges_every_row_alike(tmp_path: Path) -> None:
    output = tmp_path / "mix_gate.json"
    assert benchmark.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    assert (result["passed"], result["same_figures"]) == (True, True)
    assert len(result["seconds"]) == 6
