"""A real model in int8 on a real server predicts what the reference network predicts."""

from pathlib import Path

import pytest
import torch

from assembler.compression import int8_checkpoint
from assembler.demo import seed_folders, seeds
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.training.batches import TokenReader
from engine.compression import int8_units
from engine.divergence.aggregates import summarize
from engine.vllm_server import vllm_process
from registry.blobs import blob_stores
from registry.catalog.documents import Document
from registry.ingest.checkpoint_folder import CheckpointFolder

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.slow
def test_served_int8_model_is_within_the_reference_networks_noise(tmp_path: Path) -> None:
    """Compare served SmolLM2-135M, with all layers in int8 that a CPU serves, with the noise floor.

    Sums that differ in their last bit round some input to its other neighbor. That changes the next
    layer's inputs by more, and so on: in a network this deep, two orders of summation differ as
    much as rounding itself does. In float32 both shares would be 1.
    """
    blobs = blob_stores.store()
    plain = CheckpointFolder.read(seed_folders.unpacked(seeds.DEFAULT)).keep(blobs)
    modules = int8_units.modules(int8_units.units(plain, "cpu"))
    compressed = int8_checkpoint.write(plain, modules, target="cpu", blobs=blobs)
    with vllm_process.serving(compressed, blobs=blobs, log_path=tmp_path / "log") as served:
        network = Network.from_manifest(compressed, blobs, dtype=torch.float32)
        text = Document("readme", README.read_text(), "held-out")
        prompts = TokenReader.of(plain, blobs).windows([text], split="held-out", length=24)[:8]
        prefixes = list(map(tuple, prompts.tolist()))
        texts = network_runner.runner(network).write(prefixes, num_tokens=32)
        floor = summarize(texts, network_runner.runner(network).read(texts))
        served.wait_ready()
        summary = summarize(texts, served.runner().read(texts))
    assert summary.equal_share >= floor.equal_share - 0.06
    assert summary.perplexity == pytest.approx(floor.perplexity, rel=0.05)
