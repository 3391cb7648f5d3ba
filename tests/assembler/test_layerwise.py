"""Reading from a layer on is reading from the beginning."""

import pytest
import torch

from assembler import evaluate
from assembler.layerwise import LayerwiseReader
from assembler.network import Network
from assembler.quantisation import as_int8
from engine import compression
from engine.divergence.metrics import Continuation
from registry.blobs import LocalBlobs
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES


def texts(network: Network, *, count: int = 5) -> list[Continuation]:
    generator = torch.Generator().manual_seed(4)
    prompts = torch.randint(network.architecture.vocab_size, (count, 6), generator=generator)
    return evaluate.runner(network).write(list(map(tuple, prompts.tolist())), num_tokens=7)


@pytest.mark.parametrize("name", ["dense", "untied", "convex", "bam-shared-kv-parallel"])
def test_a_change_is_read_from_its_layer_on(name: str, blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, ARCHITECTURES[name])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    read_texts = texts(network)
    reader = LayerwiseReader(network, read_texts)
    states = reader.states()
    for unit in compression.units(manifest, "gpu"):
        with as_int8(network, unit.modules, target="gpu"):
            read = reader.read(states, layer=unit.layer)
            expected = evaluate.runner(network).read(read_texts)
        for got, whole in zip(read, expected, strict=True):
            assert got.logprobs == pytest.approx(whole.logprobs, abs=1e-4)


def test_some_of_the_texts_are_read_as_all_of_them(blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, ARCHITECTURES["dense"])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    reader = LayerwiseReader(network, texts(network))
    states = reader.states()
    whole = reader.read(states, layer=0)
    parts = [
        *reader.read(states, layer=0, rows=slice(0, 2)),
        *reader.read(states, layer=0, rows=slice(2, 5)),
    ]
    assert [part.predicted for part in parts] == [one.predicted for one in whole]
