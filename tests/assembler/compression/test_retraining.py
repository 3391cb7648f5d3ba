"""Retraining changes the other weights of a pruned network and keeps its zeros."""

import pytest
import torch
from torch import nn

from assembler.compression.pruning import pruned
from assembler.compression.retraining import Retraining
from assembler.network.model import Network
from assembler.network.network_runner import log_perplexity
from assembler.training.batches import TokenReader
from engine.compression.sparsity_components import components
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.errors import StepFailed
from tests import tiny
from tests.assembler import tiny_mixes

TOKENS = 4096


def retraining_of(
    manifest: Manifest, blobs: LocalBlobs, *, tokens: int, domains: int = 1
) -> Retraining:
    documents = [tiny.sample_documents(expert=number + 1) for number in range(domains)]
    return Retraining(
        manifest, documents, tokens=tokens, blobs=blobs, on_progress=lambda text: None
    )


def retrained(
    manifest: Manifest, blobs: LocalBlobs, *, share: float, domains: int = 1
) -> tuple[Network, Network, dict[str, float]]:
    """Return the network after pruning and after a round of retraining, and its shares of zeros."""
    shares = {component.name: share for component in components(manifest)}
    before, after = (Network.from_manifest(manifest, blobs, dtype=torch.float32) for _ in range(2))
    for name in shares:
        parameter = before.get_parameter(f"{name}.weight")
        parameter.data = pruned(parameter, share)
    retraining_of(manifest, blobs, tokens=TOKENS, domains=domains).run(after, shares)
    return before, after, shares


def test_zeros_stay_and_other_weights_learn(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    before, after, shares = retrained(manifest, blobs, share=0.5)
    for name in shares:
        zero = before.get_parameter(f"{name}.weight") == 0
        weight = after.get_parameter(f"{name}.weight")
        assert not weight[zero].any()
        assert weight[~zero].any()
    reader = TokenReader.of(manifest, blobs)
    held_out = reader.windows(tiny.sample_documents(expert=1), split="held-out", length=32)
    assert log_perplexity(after, held_out) < log_perplexity(before, held_out)


def test_tensors_that_are_not_pruned_do_not_change(blobs: LocalBlobs) -> None:
    before, after, shares = retrained(tiny_mixes.store_mix(blobs), blobs, share=0.3, domains=3)
    pruned_too = {f"{name}.weight" for name in shares}
    for name, weight in after.state_dict().items():
        if name not in pruned_too:
            assert torch.equal(weight, before.state_dict()[name]), name


def test_retrained_weights_can_be_stored_exactly(blobs: LocalBlobs) -> None:
    _, after, shares = retrained(tiny.store_manifest(blobs), blobs, share=0.5)
    for name in shares:
        weight = after.get_parameter(f"{name}.weight")
        assert not weight.requires_grad
        assert torch.equal(weight, weight.bfloat16().float())


def test_rounds_read_other_batches(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    shares = {components(manifest)[0].name: 0.2}
    retraining = retraining_of(manifest, blobs, tokens=2048)
    made = []
    for _ in range(2):
        network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
        retraining.run(network, shares)
        made.append(network.get_parameter(f"{next(iter(shares))}.weight"))
    assert not torch.equal(*made)


def test_a_loss_that_is_not_finite_is_an_error(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    network.model.norm.weight = nn.Parameter(torch.full_like(network.model.norm.weight, torch.nan))
    retraining = retraining_of(manifest, blobs, tokens=512)
    with pytest.raises(StepFailed, match="the loss is nan in step 1 of retraining"):
        retraining.run(network, {components(manifest)[0].name: 0.2})
