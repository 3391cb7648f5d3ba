"""The benchmark of the gateway runs whole, beside a real proxy of LiteLLM's."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.gateway import benchmark


@pytest.mark.long
def test_a_quick_run_measures_both_sides(tmp_path: Path) -> None:
    output = tmp_path / "gateway.json"
    assert benchmark.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    for name in (benchmark.ENGINE, benchmark.GATEWAY, benchmark.PROXY):
        assert result["loads"][name]["16"]["per_second"]["median"] > 0
        assert result["loads"][name]["16"]["failures"] == 0
    assert result["idle_streams"][benchmark.GATEWAY]["begun"] == benchmark.QUICK_STREAMS
