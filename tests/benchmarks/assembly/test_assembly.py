"""The benchmark of assembly runs on tiny models, without mergekit."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.assembly import benchmark


@pytest.mark.slow
def test_a_quick_run_leaves_a_result(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    assert benchmark.main(["--quick", "--output", str(output)]) == 0
    text = output.read_text()
    runs = json.loads(text)["sizes"]["tiny"]["assembly"]
    whole, ffn = runs[benchmark.OURS], runs[benchmark.OURS_FFN]
    # Half of the means are not needed, and without torch the process stays small.
    assert 0 < ffn["written_mb"]["median"] < whole["written_mb"]["median"]
    assert whole["private_mb"]["median"] < 150
    assert str(tmp_path) not in text
