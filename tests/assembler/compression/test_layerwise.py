"""Reading from a changed layer on gives the same result as reading from the beginning."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch

from assembler.compression import layerwise
from assembler.compression.layerwise import Change, LayerwiseReader
from assembler.network import network_runner
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.int8_units import Unit
from engine.divergence.metrics import Continuation, first_divergence
from registry.blobs.blobs import LocalBlobs
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES


def texts(network: Network, *, num_tokens: int = 7) -> list[Continuation]:
    generator = torch.Generator().manual_seed(4)
    prompts = torch.randint(network.architecture.vocab_size, (5, 6), generator=generator)
    return network_runner.runner(network).write(
        list(map(tuple, prompts.tolist())), num_tokens=num_tokens
    )


def changes_of(network: Network, units: Sequence[Unit]) -> list[Change]:
    return [
        Change(
            layer=unit.layer,
            applied=partial(as_int8, network, unit.modules, target="gpu"),
            rows=[[4, 0, 2], [1], [], [3, 1]][number % 4],
        )
        for number, unit in enumerate(units)
    ]


@pytest.mark.parametrize("name", ["dense", "untied", "convex", "bam-shared-kv-parallel"])
def test_a_change_is_computed_from_its_layer_on(name: str, blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, ARCHITECTURES[name])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    read_texts = texts(network)
    reader = LayerwiseReader(network, read_texts)
    states = reader.states()
    for unit in int8_units.units(manifest, "gpu"):
        with as_int8(network, unit.modules, target="gpu"):
            read = reader.read(states, layer=unit.layer)
            expected = network_runner.runner(network).read(read_texts)
        for got, whole in zip(read, expected, strict=True):
            assert got.logprobs == pytest.approx(whole.logprobs, abs=1e-5)


@pytest.mark.parametrize("name", ["dense", "untied", "convex"])
@pytest.mark.parametrize("batch_tokens", [13, 3 * 13, 1000])
def test_changes_in_one_batch_equal_single_changes(
    name: str, batch_tokens: int, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layerwise, "BATCH_TOKENS", batch_tokens)
    manifest = networks.store(blobs, ARCHITECTURES[name])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    reader = LayerwiseReader(network, texts(network))
    states = reader.states()
    units = int8_units.units(manifest, "gpu")[::-1]
    changes = changes_of(network, units)
    for unit, change, read in zip(
        units, changes, reader.read_changes(states, changes), strict=True
    ):
        with as_int8(network, unit.modules, target="gpu"):
            alone = reader.read(states, layer=unit.layer)
        assert len(read) == len(change.rows)
        for row, got in zip(change.rows, read, strict=True):
            assert got.logprobs == pytest.approx(alone[row].logprobs, abs=1e-5)


@pytest.mark.parametrize("name", ["dense", "untied", "convex"])
@pytest.mark.parametrize("parent", ["nothing in int8", "the last unit in int8"])
@pytest.mark.parametrize("expected", [0, 9, 40])
def test_the_first_divergence_is_that_of_the_predictions(
    name: str, parent: str, expected: int, blobs: LocalBlobs
) -> None:
    """The expected position may be anywhere. The last unit of `untied` is the head."""
    manifest = networks.store(blobs, ARCHITECTURES[name])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    read_texts = texts(network, num_tokens=40)
    reader = LayerwiseReader(network, read_texts)
    *units, last = int8_units.units(manifest, "gpu")
    chosen = [last] if parent == "the last unit in int8" else []
    left = units if chosen else [*units, last]
    with as_int8(network, int8_units.modules(chosen), target="gpu"):
        states, changes = reader.states(), changes_of(network, left)
        divergences = reader.first_divergences(
            states,
            changes,
            bounds=reader.logit_bounds(states),
            expected=[expected] * len(read_texts),
        )
        all_readings = reader.read_changes(states, changes)
    for change, fdts, readings in zip(changes, divergences, all_readings, strict=True):
        tokens = [read_texts[row].tokens for row in change.rows]
        assert fdts == list(map(first_divergence, tokens, (r.predicted for r in readings)))
    assert any(fdt < len(read_texts[0].tokens) for fdts in divergences for fdt in fdts)
