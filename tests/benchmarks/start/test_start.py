"""The benchmark of cold starts runs on real engines."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.start import benchmark


@pytest.mark.long
def test_a_quick_run_starts_engines_both_ways(tmp_path: Path) -> None:
    output = tmp_path / "start.json"
    assert benchmark.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    assert result["preloaded"]["megabytes"] > 0
    for kind in (benchmark.NEW, benchmark.FORKED):
        start = result["mixes"]["tiny"][kind]
        assert start["seconds"]["median"] >= start["seconds_ready"]["median"] > 0
        assert start["cpu_seconds"]["median"] > 0
        assert start["megabytes"]["median"] > 0
