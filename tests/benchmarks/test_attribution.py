"""The benchmark of attribution runs on a tiny mix."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import attribution


@pytest.mark.long
def test_a_quick_run_times_every_mode(tmp_path: Path) -> None:
    output = tmp_path / "attribution.json"
    assert attribution.main(["--quick", f"--output={output}"]) == 0
    batches = json.loads(output.read_text())["batches"]
    assert list(batches) == [str(batch) for batch in attribution.BATCHES]
    for modes in batches.values():
        assert tuple(modes) == attribution.MODES
        assert modes[attribution.OFF]["ratio"]["median"] == 1
        assert all(mode["seconds"]["median"] > 0 for mode in modes.values())
