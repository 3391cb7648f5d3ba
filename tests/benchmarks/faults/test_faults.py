"""The gate of a mix sees faults that are planted in a tiny mix, and passes it undamaged."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.faults import __main__ as faults
from tests.benchmarks.faults import assembler_code, rebuilds, stored, subjects
from tests.benchmarks.faults.planted import Checkpoint, Plot
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.faults.subjects import Subject

STORED = ("wrong scale in one layer", "one NaN", "wrong rope", "other generation config")


@pytest.fixture
def subject(home: Path) -> Subject:
    """A mix of experts that moved all their tensors."""
    return subjects.of_tiny(trains="all").make()


def find(name: str) -> Checkpoint:
    return next(fault for fault in stored.ASSEMBLED if fault.name == name)


def test_the_construction_sees_what_is_stored_and_what_is_coded(subject: Subject) -> None:
    seen = {name: faults.of_checkpoint(subject, find(name)).seen_by for name in STORED}
    assert seen == dict.fromkeys(STORED, ("construction, by a second assembly",)) | {
        "one NaN": ("construction, by its bytes",)
    }
    assert faults.of_store(subject, stored.STORES[-1]).seen_by == ("construction, by its bytes",)
    coded = {
        fault.name: assembler_code.judge(subject, fault).seen_by
        for fault in assembler_code.FAULTS
        if fault.name in ("mean with other weights", "rows that are not folded")
    }
    assert coded == {
        "mean with other weights": ("construction, by its parents' tensors",),
        "rows that are not folded": ("construction, by its projection",),
    }
    assert rebuilds.judge(subject, 1, is_served=False).seen_by == ()


def test_damage_stays_in_its_data_folder(subject: Subject) -> None:
    name = "model.layers.1.mlp.experts.2.down_proj.weight"
    digest = subject.assembled.tensors[name].digest
    with own_home(subject.blobs) as store:
        stored.STORES[0].plant(Plot(subject, store))
        damaged = store.local_path(digest).read_bytes()
    assert subject.blobs.local_path(digest).read_bytes() != damaged
    assert not store.root.exists()


@pytest.mark.long
def test_the_whole_experiment(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    faults.main(["--quick", "--output", str(output)])
    result = json.loads(output.read_text())
    assert not result["alarms"]
    assert len(result["rebuilds"]) >= rebuilds.MIN_REBUILDS
    assert not result["unseen"]
