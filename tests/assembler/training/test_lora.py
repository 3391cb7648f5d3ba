"""Adapters of the trainer: what is trained, and that the registry and peft read what is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from assembler.network.model import Network
from assembler.training import lora
from assembler.training.expert_training import ExpertTraining, train_expert
from registry.blobs.blobs import LocalBlobs
from registry.catalog import documents
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.safetensors_header import read_header
from registry.imports import lora_adapters
from registry.imports.lora_config import LoraConfig
from registry.ingest.adapter_folder import AdapterFolder, is_adapter
from tests import tiny

TOKENS = torch.arange(24)[None]


def adapted(seed: Path) -> Network:
    """Return the network of a checkpoint with updates of all FFNs that are not zero."""
    network = plain(seed)
    lora.adapt(network, seed=0)
    for name, parameter in network.named_parameters():
        if name.endswith("lora_b"):
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return network.requires_grad_(False)


def plain(seed: Path) -> Network:
    """Return the frozen network of a checkpoint in float32."""
    network = Network(Architecture.from_config(json.loads((seed / "config.json").read_text())))
    network.load_state_dict(load_file(seed / "model.safetensors"))
    return network.requires_grad_(False)


def test_an_adapter_of_a_text_is_trained(tmp_path: Path) -> None:
    seed, text = tiny.write_checkpoint(tmp_path / "seed"), tmp_path / "own.jsonl"
    text.write_bytes(documents.serialize(tiny.sample_documents(expert=1)))
    training = ExpertTraining(
        train="lora", tokens=30 * 4 * 32, batch_size=4, sequence_length=32, learning_rate=1e-2
    )
    folder = train_expert(seed, text, training=training, on_progress=lambda _: None)

    assert is_adapter(folder)
    assert AdapterFolder.read(folder).announcement["files"].keys() == {"metrics.json"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["expert_perplexity"] < 0.9 * metrics["seed_perplexity"]


def test_an_adapted_network_starts_as_its_seed(tmp_path: Path) -> None:
    seed = tiny.write_checkpoint(tmp_path / "seed")
    network = plain(seed)
    lora.adapt(network, seed=0)

    torch.testing.assert_close(network(TOKENS), plain(seed)(TOKENS))
    assert not adapted(seed)(TOKENS).equal(plain(seed)(TOKENS))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert all(".mlp." in name and ".lora_" in name for name in trained)
    # A and B of three layers.
    assert len(trained) == 2 * 3 * network.architecture.num_hidden_layers


@pytest.mark.slow
def test_peft_reads_a_written_adapter(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    seed = tiny.write_checkpoint(tmp_path / "seed")
    network = adapted(seed)
    lora.write(network, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(tmp_path))

    torch.testing.assert_close(theirs(TOKENS).logits, network(TOKENS), atol=1e-4, rtol=1e-4)


def test_the_registry_merges_a_written_adapter(tmp_path: Path, blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    network = adapted(tiny.write_checkpoint(tmp_path / "seed"))
    lora.write(network, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    config = LoraConfig.read(json.loads((tmp_path / "adapter_config.json").read_text()))
    planned = lora_adapters.plan(config, read_header(path), seed)
    merged = lora_adapters.merge(planned, path, seed, blobs, on_tensor=lambda *_: None)
    expert = Network.from_manifest(replace(seed, tensors=merged), blobs, dtype=torch.float32)

    # The merged weights are rounded to bfloat16.
    torch.testing.assert_close(expert(TOKENS), network(TOKENS), atol=0.2, rtol=0.05)
