"""The reference network equals two independent definitions: transformers, and plain loops.

Covers: attention, moe.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from assembler.network.attention import Cache
from assembler.network.model import Network
from assembler.network.moe import MoE
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.architecture import Architecture
from tests import tiny
from tests.assembler import loops, networks, tiny_mixes
from tests.assembler.networks import ARCHITECTURES


def tokens(*, num_sequences: int = 2, length: int = 19) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    vocab_size = tiny.ARCHITECTURE.vocab_size
    return torch.randint(vocab_size, (num_sequences, length), generator=generator)


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_dense_equals_transformers(tied: bool) -> None:
    architecture = replace(tiny.ARCHITECTURE, tie_word_embeddings=tied)
    hf_model = LlamaForCausalLM(LlamaConfig(**architecture.to_config()))  # type: ignore[no-untyped-call]
    network, state = Network(architecture), hf_model.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    torch.testing.assert_close(network(tokens()), hf_model(tokens()).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_network_equals_loops_over_tokens_heads_and_experts(name: str, blobs: LocalBlobs) -> None:
    network = stored_network(ARCHITECTURES[name], blobs)
    expected = [
        loops.logits(network.state_dict(), ARCHITECTURES[name], text) for text in tokens(length=9)
    ]
    torch.testing.assert_close(
        network(tokens(length=9)), torch.stack(expected), atol=1e-4, rtol=1e-4
    )


@torch.inference_mode()
def test_equal_experts_give_the_dense_network(blobs: LocalBlobs) -> None:
    """A convex mixture of one FFN with itself equals that FFN for any routing."""
    mix, seed = tiny_mixes.store_mix(blobs), tiny.store_manifest(blobs)
    network = Network.from_manifest(mix, blobs, dtype=torch.float32)
    for mixture in network.modules():
        if isinstance(mixture, MoE):
            assert mixture.shared_expert is not None
            for expert in mixture.experts.values():
                expert.load_state_dict(mixture.shared_expert.state_dict())
    dense = Network.from_manifest(seed, blobs, dtype=torch.float32)
    torch.testing.assert_close(network(tokens()), dense(tokens()))


@torch.inference_mode()
def test_projected_rows_equal_the_stored_rows(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(tiny_mixes.store_mix(blobs), blobs, dtype=torch.float32)
    folded: list[Tensor] = []
    projected: list[Tensor] = []
    network(tokens(), router_logits=folded)
    network(tokens(), router_logits=projected, project_rows=True)
    # The stored rows were rounded to bfloat16.
    torch.testing.assert_close(folded[0], projected[0], rtol=0.02, atol=0.05)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_reading_in_pieces_equals_reading_at_once(name: str, blobs: LocalBlobs) -> None:
    network = stored_network(ARCHITECTURES[name], blobs)
    cache, text = Cache(), tokens()
    pieces = [network(piece, cache=cache) for piece in torch.split(text, [5, 1, 13], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), network(text), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_have_the_names_of_the_checkpoint(name: str) -> None:
    network = Network(ARCHITECTURES[name])
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == ARCHITECTURES[name].tensor_shapes()


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.disabled_experts])
@torch.inference_mode()
def test_a_disabled_expert_equals_a_removed_one(name: str, blobs: LocalBlobs) -> None:
    mix = networks.store(blobs, ARCHITECTURES[name])
    [disabled] = ARCHITECTURES[name].disabled_experts
    rest = networks.without_expert(mix, disabled, blobs)
    outputs = [
        Network.from_manifest(manifest, blobs, dtype=torch.float32)(tokens())
        for manifest in (mix, rest)
    ]
    torch.testing.assert_close(*outputs)


def test_gradients_reach_the_projection(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(tiny_mixes.store_mix(blobs), blobs, dtype=torch.float32)
    network.requires_grad_()
    network(tokens(), project_rows=True).sum().backward()
    missing = {name for name, p in network.named_parameters() if p.grad is None}
    assert missing == {f"model.layers.{i}.mlp.gate.weight" for i in range(2)}


def stored_network(architecture: Architecture, blobs: LocalBlobs) -> Network:
    manifest = networks.store(blobs, architecture)
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.num_experts])
def test_losses_on_router_logits_train_only_routers(name: str, blobs: LocalBlobs) -> None:
    network = stored_network(ARCHITECTURES[name], blobs).requires_grad_()
    logits: list[Tensor] = []
    network(tokens(), router_logits=logits)
    torch.autograd.backward(torch.stack(logits).logsumexp(-1).sum())
    trained = {n for n, p in network.named_parameters() if p.grad is not None}
    assert trained
    assert all(".mlp.gate." in name for name in trained)
