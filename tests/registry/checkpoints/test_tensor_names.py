"""Builders and predicates of tensor names agree with the tensors that an architecture lists."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from registry.checkpoints import tensor_names
from registry.checkpoints.architecture import Architecture

DENSE = Architecture(
    vocab_size=32,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
NEXUS = replace(DENSE, num_experts=3, expert_names=("a", "b", "c"), domain_embedding_size=9)
MLP = replace(NEXUS, router="mlp", router_hidden_size=4)
BAM = replace(
    NEXUS, router="linear", combine="sum", shared_expert=False, attention="experts-shared-kv"
)
LAYERS = range(DENSE.num_hidden_layers)
EXPERTS = range(NEXUS.num_experts)


def built(a: Architecture) -> set[str]:
    """Return every tensor name of a network, made by the builders."""
    names = {
        tensor_names.EMBEDDINGS,
        tensor_names.FINAL_NORM,
        tensor_names.LM_HEAD + tensor_names.WEIGHT,
    }
    for layer in LAYERS:
        names |= {tensor_names.input_norm(layer), tensor_names.ffn_norm(layer)}
        ffns, attentions = [tensor_names.ffn(layer)], {tensor_names.attention(layer): "qkvo"}
        if a.num_experts:
            ffns = [tensor_names.routed_expert(layer, number) for number in EXPERTS]
            ffns += [tensor_names.shared_expert(layer)] if a.shared_expert else []
            names.add(tensor_names.router_rows(layer))
        if a.attention == "experts-shared-kv":
            attentions = {tensor_names.attention(layer): "kv"}
            attentions |= {tensor_names.attention_expert(layer, n): "qo" for n in EXPERTS}
            names.add(tensor_names.attention_router_rows(layer))
        if a.router == "mlp":
            names.add(tensor_names.router_hidden(layer))
        if a.has_projection:
            names |= {tensor_names.projection(layer, number) for number in (0, 1)}
            names.add(tensor_names.DOMAIN_EMBEDDINGS)
        names |= {f"{ffn}.{part}.weight" for ffn in ffns for part in tensor_names.FFN_PARTS}
        names |= {f"{module}.{p}_proj.weight" for module, ps in attentions.items() for p in ps}
    return names


@pytest.mark.parametrize("network", [DENSE, NEXUS, MLP, BAM])
def test_builders_give_every_name(network: Architecture) -> None:
    assert built(network) == set(network.tensor_shapes())


@pytest.mark.parametrize(
    ("predicate", "network", "count"),
    [
        (tensor_names.is_ffn, DENSE, 3),
        (tensor_names.is_attention, DENSE, 4),
        (tensor_names.is_key_value, DENSE, 2),
        (tensor_names.is_in_block, DENSE, 9),
        (tensor_names.is_routed_expert, NEXUS, 9),
        (tensor_names.is_shared_expert, NEXUS, 3),
        (tensor_names.is_router, NEXUS, 3),
        (tensor_names.is_router_rows, NEXUS, 1),
        (tensor_names.is_projection, NEXUS, 2),
        (tensor_names.is_router, MLP, 2),
        (tensor_names.is_router, BAM, 2),
        (tensor_names.is_router_rows, BAM, 1),
        (tensor_names.is_router, DENSE, 0),
    ],
)
def test_predicates_find_their_tensors_in_every_block(
    predicate: Callable[[str], bool], network: Architecture, count: int
) -> None:
    found = [name for name in network.tensor_shapes() if predicate(name)]
    assert len(found) == count * len(LAYERS)


def test_inference_needs_no_domain_embeddings_and_projections() -> None:
    unread = {n for n in NEXUS.tensor_shapes() if not tensor_names.is_computed_with(n)}
    projections = {tensor_names.projection(layer, n) for layer in LAYERS for n in (0, 1)}
    assert unread == projections | {tensor_names.DOMAIN_EMBEDDINGS}


def test_dense_names_become_names_of_experts() -> None:
    shapes = NEXUS.tensor_shapes()
    for name in filter(tensor_names.is_ffn, DENSE.tensor_shapes()):
        assert tensor_names.as_shared_expert(name) in shapes
        for number in EXPERTS:
            routed = tensor_names.as_routed_expert(name, number)
            assert routed in shapes
            assert tensor_names.expert_number(routed) == number


def test_linear_layers_of_blocks() -> None:
    name = tensor_names.routed_expert(1, 2) + ".up_proj"
    assert tensor_names.linear_in_block(name + tensor_names.WEIGHT) == (name, 1)
    assert tensor_names.linear_in_block(tensor_names.router_rows(1)) is None
    assert tensor_names.linear_in_block(tensor_names.EMBEDDINGS) is None


def test_attention_experts_split() -> None:
    name = tensor_names.attention_expert(1, 2) + ".q_proj.weight"
    attention = tensor_names.attention(1)
    assert tensor_names.split_attention_expert(name) == (attention, 2, "q_proj.weight")
    assert tensor_names.split_attention_expert(f"{attention}.q_proj.weight") is None


def test_what_a_weight_outside_ffns_reads_has_a_name() -> None:
    reads = {
        name: read
        for name in DENSE.tensor_shapes()
        if (read := tensor_names.input_of(name, is_tied=False))
    }
    attention = tensor_names.attention(1)
    of_block = {name: read for name, read in reads.items() if name.startswith(attention)}
    assert of_block == {
        f"{attention}.q_proj.weight": f"{attention}.input",
        f"{attention}.k_proj.weight": f"{attention}.input",
        f"{attention}.v_proj.weight": f"{attention}.input",
        f"{attention}.o_proj.weight": f"{attention}.o_proj.input",
    }
    assert len(reads) == 4 * len(LAYERS) + 1
    fused = tensor_names.input_of(f"{attention}.qkv_proj.weight", is_tied=True)
    assert fused == f"{attention}.input"
    head = reads[tensor_names.LM_HEAD + tensor_names.WEIGHT]
    assert tensor_names.input_of(tensor_names.EMBEDDINGS, is_tied=True) == head
    assert tensor_names.input_of(f"{attention}.q_proj.bias", is_tied=True) is None
