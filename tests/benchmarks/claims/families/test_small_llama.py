"""Tests of the trainings of the small Llama, on a few short texts."""

from pathlib import Path

import pytest
import torch

from assembler.network.model import Network
from assembler.network.network_runner import log_perplexity
from assembler.training.batches import TokenReader
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_ffn
from registry.settings import settings
from tests.benchmarks.claims.families import small_llama
from tests.benchmarks.claims.families.small_llama import tiny_family


def changed(seed: Manifest, expert: Manifest) -> set[str]:
    return {name for name in seed.tensors if seed.tensors[name] != expert.tensors[name]}


def test_an_expert_knows_its_domain_better_than_the_seed(home: Path, blobs: LocalBlobs) -> None:
    family = tiny_family(blobs, seed=0)
    reader = TokenReader.of(family.seed, blobs)
    for domain, expert in family.experts.items():
        texts = family.documents[domain]
        windows = reader.windows(texts, split="held-out", length=WINDOW_TOKENS)
        seed_loss, expert_loss = (
            log_perplexity(Network.from_manifest(read, blobs, dtype=torch.float32), windows)
            for read in (family.seed, expert)
        )
        assert expert_loss < seed_loss


def test_training_changes_only_ffns_or_all_tensors(home: Path, blobs: LocalBlobs) -> None:
    ffns, full = (tiny_family(blobs, seed=0, trains=trains) for trains in ("ffn", "all"))
    assert ffns.seed == full.seed
    for expert in ffns.experts.values():
        assert changed(ffns.seed, expert) == {name for name in ffns.seed.tensors if is_ffn(name)}
    for expert in full.experts.values():
        assert changed(full.seed, expert) == set(full.seed.tensors)


def test_a_second_call_trains_nothing(
    home: Path, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_family(blobs, seed=0)

    def train_again(*_: object) -> None:
        raise AssertionError("it was trained before")

    monkeypatch.setattr(small_llama, "train", train_again)
    assert tiny_family(blobs, seed=0) == first


def test_the_seed_decides_all_weights(
    home: Path, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, other = (tiny_family(blobs, seed=seed) for seed in (0, 1))
    assert len(changed(first.seed, other.seed)) == len(first.seed.tensors)
    monkeypatch.setenv("NEXUSMIX_HOME", str(tmp_path / "elsewhere"))
    settings.cache_clear()
    assert tiny_family(blobs, seed=0) == first


def test_a_family_can_have_parallel_blocks(home: Path, blobs: LocalBlobs) -> None:
    sequential, parallel = (tiny_family(blobs, seed=0, parallel_block=p) for p in (False, True))
    assert parallel.seed.architecture.parallel_block
    assert sequential.seed.tensors.keys() > parallel.seed.tensors.keys()
    network = Network.from_manifest(parallel.seed, blobs, dtype=torch.float32)
    assert all(block.post_attention_layernorm is None for block in network.model.layers)
    assert network(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()
