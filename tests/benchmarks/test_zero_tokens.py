"""The benchmark runs, on tiny checkpoints, and reads no network twice."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import zero_tokens


def test_it_says_what_each_mix_reaches(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "result.json"
    arguments = ["--quick", "--output", str(output)]
    assert zero_tokens.main(arguments) == 0
    networks = json.loads(output.read_text())["networks"]
    assert set(networks) > set(zero_tokens.VARIANTS)
    assert networks["seed"]["share_of_gain"] == 0
    assert networks[zero_tokens.ORACLE]["share_of_gain"] == 1
    default = networks[zero_tokens.DEFAULT]
    assert default["share_of_gain"] > networks["linear"]["share_of_gain"]
    assert min(default["routed_to_own_expert"].values()) > 0.5

    def read_again(*_: object) -> None:
        raise AssertionError("it was read before")

    monkeypatch.setattr(zero_tokens, "_read_domain", read_again)
    assert zero_tokens.main(arguments) == 0
    assert json.loads(output.read_text())["networks"] == networks
