"""Checks and metrics catch faults that are planted in random Llamas."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.blobs.blobs import LocalBlobs
from tests.benchmarks.faults import __main__ as faults
from tests.benchmarks.faults import planted
from tests.benchmarks.faults.judging import Gate
from tests.benchmarks.faults.planted import Plot
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.harness import demo_mix


@pytest.fixture
def gate(home: Path) -> Gate:
    return Gate(demo_mix.of_random_llamas(), prompts=4, tokens=16, windows=2)


def of_checkpoint(gate: Gate, name: str) -> dict[str, Any]:
    [fault] = [fault for fault in planted.CHECKPOINTS if fault.name == name]
    return faults._of_checkpoint(gate, fault).to_json()


@pytest.mark.parametrize(
    "name", ["wrong scale in one layer", "experts swapped", "stale weights", "one NaN"]
)
def test_damaged_weights_are_seen_by_divergent_tokens(gate: Gate, name: str) -> None:
    verdict = of_checkpoint(gate, name)
    assert {"equal_share", "sdt", "dppl_ratio"} <= set(verdict["failed"])
    assert ("digests" in verdict["refused"]) == (name == "one NaN")


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("top-k renormalized", {"config", "routers", "comparison"}),
        ("half-loaded shard", {"load"}),
        ("wrong tokenizer", {"files", "comparison"}),
        ("chat template changed", {"files", "comparison"}),
    ],
)
def test_faults_that_no_metric_notices_are_refused(gate: Gate, name: str, checks: set[str]) -> None:
    verdict = of_checkpoint(gate, name)
    assert set(verdict["refused"]) == checks
    assert verdict["failed"] == []


def test_other_bytes_under_a_digest_are_refused(gate: Gate) -> None:
    for fault in planted.STORES:
        assert "digests" in faults._of_store(gate, fault).to_json()["refused"]


def test_an_undamaged_mix_passes_all_checks(gate: Gate) -> None:
    with own_home(gate.demo) as store:
        verdict = gate.stored(gate.demo.mix, store)
    assert (verdict.refusals, verdict.failed) == ({}, ())
    assert verdict.figures["equal_share"] == verdict.figures["perplexity_to_reference"] == 1


def test_damage_stays_in_its_data_folder(gate: Gate) -> None:
    demo = gate.demo
    with own_home(demo) as store:
        digest = planted.zeroed_half(Plot(demo, store))
        damaged = store.local_path(digest).read_bytes()
    assert isinstance(demo.blobs, LocalBlobs)
    assert demo.blobs.local_path(digest).read_bytes() != damaged
    assert not store.root.exists()


@pytest.mark.slow
def test_the_whole_experiment(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    faults.main(["--quick", "--output", str(output)])
    result = json.loads(output.read_text())
    assert not any(rebuild["refused"] or rebuild["failed"] for rebuild in result["rebuilds"])
    assert all(rebuild["same_bytes"] for rebuild in result["rebuilds"])
    verdicts = result["faults"]
    assert set(verdicts["chat template changed, served"]["refused"]) == {"folder", "comparison"}
    assert verdicts["chat template changed, served"]["failed"] == []
    assert "folder" in verdicts["wrong rope, served"]["refused"]
    assert verdicts["one NaN, served"]["refused"] or verdicts["one NaN, served"]["failed"]
