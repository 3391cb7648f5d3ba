"""The benchmark of serving compressed models runs on tiny models."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import serving


@pytest.mark.long
def test_a_quick_run_times_both_servers(tmp_path: Path) -> None:
    output = tmp_path / "serving.json"
    assert serving.main(["--quick", f"--output={output}"]) == 0
    pair = json.loads(output.read_text())["pairs"][serving.REMOVED]
    assert pair["num_bytes"] < pair["num_bytes_before"]
    assert list(pair["kinds"]) == list(serving.QUICK_LENGTHS)
    for kind in pair["kinds"].values():
        assert kind["ratio"]["median"] > 0
