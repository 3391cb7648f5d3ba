"""Differences of prunings are judged by their intervals; FDT separates them on random Llamas."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.benchmarks import perturbation
from tests.benchmarks.perturbation import METRICS, Harms, at_random, pruned, smallest, told_apart


def trials(*rows: list[float]) -> list[tuple[str, Harms]]:
    """A component for each row of differences by prefix, the same of every metric."""
    return [(str(i), dict.fromkeys(METRICS, np.array(row))) for i, row in enumerate(rows)]


def test_as_many_weights_go_either_way_and_come_back() -> None:
    layer = nn.Linear(50, 60)
    before = layer.weight.clone()
    with torch.no_grad():
        layer.weight[0, 0] = 0
        before[0, 0] = 0
    gone = []
    for choose in (smallest, at_random([1])):
        with pruned(layer.weight, choose):
            gone.append(before[(layer.weight == 0) & (before != 0)].abs())
        assert torch.equal(layer.weight, before)
    assert len(gone[0]) == len(gone[1]) == 3
    assert gone[0].max() < gone[1].max()


def test_a_clear_difference_is_noticed() -> None:
    verdict = told_apart(trials([1, 2, 1, 3] * 4, [2, 1, 1, 1] * 4), "fdt")
    assert (verdict["right"], verdict["tells"], verdict["misleads"]) == (2, 2, 0)
    assert verdict["share_right"][0] == 1


def test_the_wrong_sign_misleads() -> None:
    verdict = told_apart(trials([-1, -2, -1, -3] * 4), "fdt")
    assert (verdict["wrong"], verdict["tells"], verdict["misleads"]) == (1, 0, 1)
    assert verdict["share_right"][0] == 0


def test_no_difference_is_chance() -> None:
    verdict = told_apart(trials([0.0] * 8), "sdt")
    assert (verdict["equal"], verdict["tells"], verdict["misleads"]) == (1, 0, 0)
    assert verdict["share_right"] == [0.5, 0.5, 0.5]


def test_signs_are_as_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "result.json"
    assert perturbation.main(["--quick", "--output", str(output)]) == 0
    first = output.read_text()
    subjects = json.loads(first)["subjects"]
    assert [name.split()[0] for name in subjects] == ["seed", "expert", "nexus"]
    for subject in subjects.values():
        metrics = subject["told_apart"]
        # The low end of the interval; half of the signs are right by chance.
        assert metrics["fdt"]["share_right"][1] > 0.5
        assert metrics["sdt"]["share_right"][1] > 0.5
        assert metrics["perplexity"]["share_right"][1] < 0.5
        assert metrics["fdt"]["mean_difference"][1] > 0

    def read_again(*_: object) -> None:
        raise AssertionError("it was read before")

    monkeypatch.setattr(perturbation, "LayerwiseReader", read_again)
    perturbation.main(["--quick", "--output", str(output)])
    assert output.read_text() == first
