"""The benchmark of previews runs on a real service with a real engine."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.preview import benchmark


@pytest.mark.long
def test_a_quick_run_times_every_stage(tmp_path: Path) -> None:
    output = tmp_path / "preview.json"
    assert benchmark.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    assert result["engine_cpu_seconds"]["median"] > 0
    for stage in ("request", "queue", "assembly", "engine", "first token"):
        assert result["stages"][stage]["median"] > 0
