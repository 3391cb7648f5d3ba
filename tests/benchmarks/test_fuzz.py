"""The fuzz benchmark runs over a real web process and all kinds of files."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import fuzz
from tests.structured_cases import KINDS


@pytest.mark.long
def test_a_quick_run_finds_no_fault(tmp_path: Path) -> None:
    output = tmp_path / "fuzz.json"
    fuzz.main(["--quick", f"--output={output}"])
    found = json.loads(output.read_text())
    # Ratios of times mean little in a run this short.
    assert found["requests"]["failures"] == {}
    assert found["requests"]["5xx"] == {}
    assert found["requests"]["requests"]["with a key"] > 0
    assert list(found["files"]) == list(KINDS)
