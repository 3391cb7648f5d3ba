"""Perplexities are measured once, and nothing is left in the store."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from assembler.evaluation import perplexities
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.network import network_runner
from assembler.network.model import Network
from engine.gates.perplexities import Perplexities
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import tiny_mixes

WINDOWS = [torch.arange(48).view(3, 16), torch.arange(32).view(2, 16)]


@pytest.fixture
def checkpoints(blobs: LocalBlobs) -> GateCheckpoints:
    experts = {f"expert-{i}": tiny.store_manifest(blobs, expert=i) for i in (1, 2)}
    return GateCheckpoints(
        seed=tiny.store_manifest(blobs),
        experts=experts,
        assembled=tiny_mixes.store_mix(blobs),
        finetuned=None,
    )


def measure(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, windows: Sequence[Tensor] = WINDOWS
) -> list[Perplexities]:
    return perplexities.measure(checkpoints, windows, blobs=blobs, on_progress=lambda *_: None)


def test_every_domain_is_measured(checkpoints: GateCheckpoints, blobs: LocalBlobs) -> None:
    first, second = measure(checkpoints, blobs)
    assert first.experts.keys() == checkpoints.experts.keys()
    assert first.finetuned is None
    network = Network.from_manifest(checkpoints.assembled, blobs, dtype=torch.float32)
    for found, windows in zip((first, second), WINDOWS, strict=True):
        assert math.log(found.assembled) == pytest.approx(
            network_runner.log_perplexity(network, windows)
        )


def test_nothing_is_measured_twice(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measure(checkpoints, blobs)
    monkeypatch.delattr(network_runner, "log_perplexity")
    assert measure(checkpoints, blobs) == before


def test_only_the_text_of_a_new_domain_is_read(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measure(checkpoints, blobs, WINDOWS[:1])
    read: list[Tensor] = []

    def log_perplexity(network: Network, windows: Tensor) -> float:
        read.append(windows)
        return 1.0

    monkeypatch.setattr(network_runner, "log_perplexity", log_perplexity)
    assert measure(checkpoints, blobs)[:1] == before
    assert all(windows is WINDOWS[1] for windows in read)
    # These are the seed, two experts, their mean, and the mix.
    assert len(read) == 5


def test_the_merge_is_not_stored(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, tmp_path: Path
) -> None:
    before = {path for path in blobs.root.rglob("*") if path.is_file()}
    measure(checkpoints, blobs)
    assert {path for path in blobs.root.rglob("*") if path.is_file()} == before
