"""A real model in int8, served by the real server: it says what the reference network says."""

from pathlib import Path

import pytest
import torch

from assembler.compression import int8_checkpoint
from assembler.demo import smollm2
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.training.batches import TokenReader
from engine.compression import int8_units
from engine.divergence.aggregates import summarize
from engine.divergence.server_runner import ServerRunner
from engine.serving import vllm_process
from registry.blobs import blob_stores
from registry.catalog.documents import Document
from registry.checkpoints.checkpoint_folder import CheckpointFolder

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.slow
def test_a_real_model_is_served_as_the_reference_reads_it(tmp_path: Path) -> None:
    """SmolLM2-135M with all that a CPU serves in int8, held against what the reference network is
    to itself.

    Sums that differ in their last bit round some input to its other neighbor, that changes the
    next layer's inputs by more, and so on: in so deep a network two orders of summation end up as
    far from each other as rounding itself is. In float32 both floors would be 1.
    """
    blobs = blob_stores.store()
    plain = CheckpointFolder.read(smollm2.seed_folder()).keep(blobs)
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
        own = summarize(texts, ServerRunner.of(served).read(texts))
    assert own.equal_share >= floor.equal_share - 0.06
    assert own.perplexity == pytest.approx(floor.perplexity, rel=0.05)
