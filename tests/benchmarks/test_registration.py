"""The benchmark of registrations runs on a real service."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import registration


@pytest.mark.long
def test_a_quick_run_times_every_stage_and_process(tmp_path: Path) -> None:
    output = tmp_path / "registration.json"
    assert registration.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    assert set(result["cpu_seconds"]) == {"client", "web", "worker", "steps"}
    assert result["stages"]["checking"]["median"] > 0
    assert result["stages"]["embedding"]["median"] > 0
    assert result["cpu_seconds"]["steps"]["median"] > 0
