"""The best units are known before all texts are read."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from assembler.compression.layerwise import Change, LayerwiseReader, States
from assembler.compression.logit_bounds import LogitBounds
from assembler.compression.unit_ranking import Configuration, UnitRanker, losses, saved
from assembler.network import network_runner
from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.int8_units import Unit
from engine.divergence.metrics import Continuation
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import networks

DEEP = replace(tiny.ARCHITECTURE, num_hidden_layers=4)


class CountingReader(LayerwiseReader):
    """A reader that counts the texts read for candidates."""

    num_read = 0

    def first_divergences(
        self,
        states: States,
        changes: Sequence[Change],
        *,
        bounds: LogitBounds | None,
        expected: Sequence[int],
    ) -> list[list[int]]:
        self.num_read += sum(len(change.rows) for change in changes)
        return super().first_divergences(states, changes, bounds=bounds, expected=expected)


@pytest.fixture
def manifest(blobs: LocalBlobs) -> Manifest:
    return networks.store(blobs, DEEP)


@pytest.fixture
def units(manifest: Manifest) -> tuple[Unit, ...]:
    return int8_units.units(manifest, "gpu")


@pytest.fixture
def network(manifest: Manifest, blobs: LocalBlobs) -> Network:
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


@pytest.fixture
def texts(network: Network) -> list[Continuation]:
    generator = torch.Generator().manual_seed(5)
    prompts = torch.randint(DEEP.vocab_size, (48, 6), generator=generator)
    return network_runner.runner(network).write(list(map(tuple, prompts.tolist())), num_tokens=24)


@pytest.mark.parametrize("num_chosen", [0, 1, 5])
@pytest.mark.parametrize("num", [1, 4])
def test_the_best_by_fdt_equal_those_after_reading_all_texts(
    num: int,
    num_chosen: int,
    network: Network,
    units: tuple[Unit, ...],
    texts: list[Continuation],
) -> None:
    reader = CountingReader(network, texts)
    floor = reader.read(reader.states(), layer=DEEP.num_hidden_layers)
    ranker = UnitRanker(
        network, reader, floor, by="fdt", target="gpu", on_progress=lambda text: None
    )
    chosen, left = units[:num_chosen], units[num_chosen:]
    with as_int8(network, int8_units.modules(chosen), target="gpu"):
        states = reader.states()
        parent = Configuration(chosen, states, reader.read(states, layer=len(states) - 1))
        ranking = ranker.rank(parent, left, num_bytes=0, num=num)
        worse = {}
        for unit in left:
            with as_int8(network, unit.modules, target="gpu"):
                unit_losses = losses(
                    "fdt", texts, reader.read(states, layer=unit.layer), floor=floor
                )
            worse[unit] = [loss / saved([*chosen, unit]) for loss in unit_losses]
    assert ranking[:num] == sorted(left, key=worse.__getitem__)[:num]
    assert sorted(ranking, key=left.index) == list(left)
    assert reader.num_read < len(left) * len(texts)


def test_perplexity_decides_if_no_text_diverges(
    network: Network, units: tuple[Unit, ...], texts: list[Continuation]
) -> None:
    """The texts have one token, which most units do not change."""
    short = [Continuation(text.prefix, text.tokens[:1]) for text in texts[:8]]
    reader = LayerwiseReader(network, short)
    states = reader.states()
    floor = reader.read(states, layer=DEEP.num_hidden_layers)
    worse = {}
    for unit in units:
        with as_int8(network, unit.modules, target="gpu"):
            unit_losses = losses("fdt", short, reader.read(states, layer=unit.layer), floor=floor)
        worse[unit] = [loss / saved([unit]) for loss in unit_losses]
    ranker = UnitRanker(
        network, reader, floor, by="fdt", target="gpu", on_progress=lambda text: None
    )
    parent = Configuration((), states, floor)
    ranking = ranker.rank(parent, units, num_bytes=saved(units) / 2, num=1)
    num = next(n for n in range(len(units)) if saved(ranking[:n]) >= saved(units) / 2)
    assert sum(unit_losses[:2] == [0, 0] for unit_losses in worse.values()) > 1
    assert ranking[:num] == sorted(units, key=worse.__getitem__)[:num]


def test_enough_units_for_the_requested_saving_are_certain(
    network: Network, units: tuple[Unit, ...], texts: list[Continuation]
) -> None:
    reader = CountingReader(network, texts)
    states = reader.states()
    floor = reader.read(states, layer=DEEP.num_hidden_layers)
    messages: list[str] = []
    ranker = UnitRanker(network, reader, floor, by="fdt", target="gpu", on_progress=messages.append)
    parent = Configuration((), states, floor)
    ranking = ranker.rank(parent, units, num_bytes=saved(units) / 2, num=1)
    num = next(n for n in range(len(units)) if saved(ranking[:n]) >= saved(units) / 2)
    assert messages[-1] == f"0 units int8; {num} of the next {num} are certain"
