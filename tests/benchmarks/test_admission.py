"""The benchmark of admission runs on a real web process."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import admission


@pytest.mark.long
def test_a_quick_run_times_both_states(tmp_path: Path) -> None:
    output = tmp_path / "admission.json"
    assert admission.main(["--quick", f"--output={output}"]) == 0
    for kind in json.loads(output.read_text())["seconds"].values():
        assert kind["requests"] == 5
        assert kind["median"]["alone"] > 0
        assert kind["median"]["with"] > 0
