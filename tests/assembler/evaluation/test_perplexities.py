"""Perplexities are measured once, and nothing is left in the store."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from assembler.evaluation import perplexities
from assembler.evaluation.perplexities import GateCheckpoints, HeldOut
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.network.network_runner import ReadText
from engine.gates.general_gate import GENERAL_TEXT
from engine.gates.perplexities import Perplexities
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import tiny_mixes

NAMES = ("expert-1", "expert-2")
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
    checkpoints: GateCheckpoints,
    blobs: LocalBlobs,
    windows: Sequence[Tensor] = WINDOWS,
    *,
    general: Tensor | None = None,
    with_baselines: bool = False,
) -> dict[str, Perplexities]:
    return perplexities.measure(
        checkpoints,
        HeldOut(domains=dict(zip(NAMES, windows, strict=False)), general=general),
        with_baselines=with_baselines,
        blobs=blobs,
        on_progress=lambda *_: None,
    )


def test_every_domain_is_measured(checkpoints: GateCheckpoints, blobs: LocalBlobs) -> None:
    first, second = measure(checkpoints, blobs).values()
    assert [set(found.experts) for found in (first, second)] == [{NAMES[0]}, {NAMES[1]}]
    assert first.merge is None
    assert first.finetuned is None
    network = Network.from_manifest(checkpoints.assembled, blobs, dtype=torch.float32)
    for found, windows in zip((first, second), WINDOWS, strict=True):
        assert math.log(found.assembled) == pytest.approx(
            network_runner.log_perplexity(network, windows)
        )


def test_baselines_are_measured_if_asked_for(
    checkpoints: GateCheckpoints, blobs: LocalBlobs
) -> None:
    for found in measure(checkpoints, blobs, with_baselines=True).values():
        assert found.experts.keys() == set(NAMES)
        assert found.merge is not None


def test_every_expert_reads_general_text(checkpoints: GateCheckpoints, blobs: LocalBlobs) -> None:
    general = torch.arange(16).view(1, 16)
    found = measure(checkpoints, blobs, general=general)[GENERAL_TEXT]
    assert found.experts.keys() == set(NAMES)
    one = perplexities.of_checkpoint(checkpoints.experts[NAMES[0]], {"any": general}, blobs)
    assert math.log(found.experts[NAMES[0]]) == pytest.approx(one["any"])


def test_routing_is_that_of_the_same_reading(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(checkpoints, blobs)
    network = Network.from_manifest(checkpoints.assembled, blobs, dtype=torch.float32)
    expected = network_runner.read(network, WINDOWS[0]).first_choices
    monkeypatch.delattr(network_runner, "read")
    found = perplexities.routing(checkpoints, WINDOWS[0], blobs)
    assert found is not None
    assert list(found.assembled.values()) == pytest.approx(expected)
    assert tuple(found.assembled) == network.architecture.expert_names
    assert found.finetuned is None


def test_nothing_is_measured_twice(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measure(checkpoints, blobs, with_baselines=True)
    monkeypatch.delattr(network_runner, "read")
    assert measure(checkpoints, blobs, with_baselines=True) == before


def test_only_the_text_of_a_new_domain_is_read(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measure(checkpoints, blobs, WINDOWS[:1])
    new: list[Tensor] = []

    def read(network: Network, windows: Tensor) -> ReadText:
        new.append(windows)
        return ReadText(1.0, [])

    monkeypatch.setattr(network_runner, "read", read)
    assert measure(checkpoints, blobs)[NAMES[0]] == before[NAMES[0]]
    assert all(windows is WINDOWS[1] for windows in new)
    # These are the seed, the expert of the domain, and the mix.
    assert len(new) == 3


def test_the_merge_is_not_stored(
    checkpoints: GateCheckpoints, blobs: LocalBlobs, tmp_path: Path
) -> None:
    before = {path for path in blobs.root.rglob("*") if path.is_file()}
    measure(checkpoints, blobs, with_baselines=True)
    assert {path for path in blobs.root.rglob("*") if path.is_file()} == before
