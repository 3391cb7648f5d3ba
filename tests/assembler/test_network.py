"""The reference network against two independent definitions: transformers, and a plain loop."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from assembler.network import Cache, Mixture, Network
from registry.architecture import Architecture, Combine
from registry.blobs import LocalBlobs
from registry.errors import Incompatible
from tests import tiny
from tests.assembler import mixes


def tokens(*, num_sequences: int = 2, length: int = 19) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    vocab_size = tiny.ARCHITECTURE.vocab_size
    return torch.randint(vocab_size, (num_sequences, length), generator=generator)


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_dense_equals_transformers(tied: bool) -> None:
    architecture = replace(tiny.ARCHITECTURE, tie_word_embeddings=tied)
    theirs = LlamaForCausalLM(LlamaConfig(**architecture.to_config()))  # type: ignore[no-untyped-call]
    ours, state = Network(architecture), theirs.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("combine", ["convex", "sum"])
@pytest.mark.parametrize("experts_per_token", [1, 2])
@torch.inference_mode()
def test_mixture_equals_a_loop_over_tokens(combine: Combine, experts_per_token: int) -> None:
    torch.manual_seed(2)
    mixture = Mixture(_mix_architecture(combine, experts_per_token))
    torch.nn.init.normal_(mixture.gate.weight)
    x_TD = torch.randn(11, tiny.ARCHITECTURE.hidden_size)
    y_TD, logits_TN = mixture(x_TD, None)
    expected = torch.stack([_one_token(mixture, x_D, combine, experts_per_token) for x_D in x_TD])
    torch.testing.assert_close(y_TD, expected)
    torch.testing.assert_close(logits_TN, x_TD @ mixture.gate.weight.T)


def _one_token(mixture: Mixture, x_D: Tensor, combine: Combine, experts_per_token: int) -> Tensor:
    p_N = F.softmax(mixture.gate.weight @ x_D, 0)
    largest = sorted(range(len(p_N)), key=lambda i: -p_N[i].item())[:experts_per_token]
    shared_weight = 1 - sum(p_N[i] for i in largest) if combine == "convex" else 1.0
    y_D: Tensor = shared_weight * mixture.shared_expert(x_D)
    for i in largest:
        y_D = y_D + p_N[i] * mixture.experts[i](x_D)
    return y_D


@torch.inference_mode()
def test_equal_experts_are_the_dense_network(blobs: LocalBlobs) -> None:
    """A convex mixture of one FFN with itself is that FFN, whatever the router says."""
    mix, seed = mixes.store_mix(blobs), tiny.store_manifest(blobs)
    network = Network.from_manifest(mix, blobs, dtype=torch.float32)
    for mixture in network.modules():
        if isinstance(mixture, Mixture):
            for expert in mixture.experts:
                expert.load_state_dict(mixture.shared_expert.state_dict())
    dense = Network.from_manifest(seed, blobs, dtype=torch.float32)
    torch.testing.assert_close(network(tokens()), dense(tokens()))


@torch.inference_mode()
def test_rows_from_the_projection_are_the_folded_rows(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(mixes.store_mix(blobs), blobs, dtype=torch.float32)
    folded: list[Tensor] = []
    projected: list[Tensor] = []
    network(tokens(), router_logits=folded)
    network(tokens(), router_logits=projected, project_rows=True)
    # What is folded was rounded to bfloat16.
    torch.testing.assert_close(folded[0], projected[0], rtol=0.02, atol=0.05)


@torch.inference_mode()
def test_reading_in_pieces_is_reading_at_once(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(mixes.store_mix(blobs), blobs, dtype=torch.float32)
    cache, text = Cache(), tokens()
    pieces = [network(piece, cache=cache) for piece in torch.split(text, [5, 1, 13], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), network(text))


def test_parameters_are_named_as_the_checkpoint() -> None:
    for architecture in (tiny.ARCHITECTURE, _mix_architecture("convex", 1)):
        shapes = {name: tuple(t.shape) for name, t in Network(architecture).state_dict().items()}
        assert shapes == architecture.tensor_shapes()


def test_gradients_reach_the_projection(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(mixes.store_mix(blobs), blobs, dtype=torch.float32)
    network.requires_grad_()
    network(tokens(), project_rows=True).sum().backward()
    missing = {name for name, p in network.named_parameters() if p.grad is None}
    assert missing == {f"model.layers.{i}.mlp.gate.weight" for i in range(2)}


def test_attention_experts_are_refused_by_name() -> None:
    mix = replace(_mix_architecture("convex", 1), attention="experts")
    with pytest.raises(Incompatible) as error:
        Network(mix)
    assert error.value.problems[0].pointer == "/config/attention"


def _mix_architecture(combine: Combine, experts_per_token: int) -> Architecture:
    return replace(
        tiny.ARCHITECTURE,
        num_experts=mixes.NUM_EXPERTS,
        num_experts_per_tok=experts_per_token,
        combine=combine,
        domain_embedding_size=mixes.EMBEDDING_SIZE,
    )
