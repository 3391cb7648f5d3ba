"""Networks of all bases equal transformers' own, and compute the same in every way of reading.

Covers: base_attention.
"""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from assembler.network.base_decoder import dense_config
from assembler.network.model import Network
from assembler.training.losses import next_token_loss
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from tests.assembler import base_networks
from tests.assembler.base_networks import CONFIGS

# Longer than the windows of the networks.
NUM_TOKENS = 40


@pytest.fixture
def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(64, (2, NUM_TOKENS), generator=generator)


def network_of(name: str, blobs: LocalBlobs, *, is_mix: bool) -> Network:
    architecture = base_networks.mixed(name) if is_mix else base_networks.dense(name)
    manifest = base_networks.store(blobs, architecture)
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dense_network_equals_that_of_transformers(
    name: str, tokens: Tensor, blobs: LocalBlobs
) -> None:
    a = base_networks.dense(name)
    manifest = base_networks.store(blobs, a)
    theirs = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        dense_config(a), attn_implementation="eager", dtype=torch.float32
    )
    state = {name: tensor.float() for name, tensor in tensors.load(blobs, manifest)}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    theirs.tie_weights()
    ours = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    with torch.inference_mode():
        expected = theirs.eval()(tokens).logits.log_softmax(-1)
        torch.testing.assert_close(ours(tokens).log_softmax(-1), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mix_reads_alike_whole_by_token_and_by_block(
    name: str, tokens: Tensor, blobs: LocalBlobs
) -> None:
    network = network_of(name, blobs, is_mix=True)
    router_logits: list[Tensor] = []
    with torch.inference_mode():
        whole = network(tokens, router_logits=router_logits)
        cache = network.new_cache()
        parts = [network(part, cache=cache) for part in torch.split(tokens, [30, *[1] * 10], 1)]
        inputs = network.model.block_inputs(tokens)
        by_block = network.model.through_block(0, inputs[0])
    assert [logits.shape for logits in router_logits] == [(tokens.numel(), 3)] * (len(inputs) - 1)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-5)
    torch.testing.assert_close(by_block, inputs[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(network.logits(network.model.norm(inputs[-1])), whole)


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2", "granite", "phi3"])
def test_the_loss_of_training_is_that_of_the_logits(
    name: str, tokens: Tensor, blobs: LocalBlobs
) -> None:
    """The fused loss applies soft caps and divisors, and its gradient is that of autograd."""
    network = network_of(name, blobs, is_mix=True)
    weight = network.model.embed_tokens.weight.requires_grad_()
    a = network.architecture

    def fused(x_BTD: Tensor, head_VD: Tensor) -> Tensor:
        divisor, soft_cap = a.logit_divisor, a.logit_soft_cap
        return next_token_loss(x_BTD, head_VD, tokens_BT=tokens, divisor=divisor, soft_cap=soft_cap)

    loss = network(tokens, head=fused)
    [gradient] = torch.autograd.grad(loss, weight)
    logits_BTV = network(tokens)
    expected = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    )
    [expected_gradient] = torch.autograd.grad(expected, weight)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-6)
