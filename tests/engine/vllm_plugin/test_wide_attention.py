"""Attention experts joined to one wide attention; `test_model` shows that it computes their sum."""

import pytest
import torch
from torch import Tensor

from engine.vllm_plugin.wide_attention import expert_of_head, widen
from registry.checkpoints.architecture import Architecture
from tests.assembler import networks

ATTENTION = "model.layers.1.self_attn"


@pytest.mark.parametrize("architecture", [networks.BAM, networks.BAM_SHARED_KV])
@pytest.mark.parametrize("part", ["q_proj", "o_proj"])
def test_joined_heads_are_in_the_order_of_expert_of_head(
    architecture: Architecture, part: str
) -> None:
    [wide] = [
        tensor
        for name, tensor in widen(marked_weights(architecture), architecture)
        if name == f"{ATTENTION}.{part}.weight"
    ]
    marks = wide[:, 0] if part == "q_proj" else wide[0]
    assert marks[:: architecture.head_dim].tolist() == expert_of_head(architecture).tolist()


def test_the_order_of_tensors_does_not_matter() -> None:
    weights = marked_weights(networks.BAM_SHARED_KV)
    forward = dict(widen(weights, networks.BAM_SHARED_KV))
    backward = dict(widen(reversed(weights), networks.BAM_SHARED_KV))
    assert forward.keys() == backward.keys()
    for name, tensor in forward.items():
        torch.testing.assert_close(tensor, backward[name])


def test_a_missing_expert_is_refused() -> None:
    weights = [(n, t) for n, t in marked_weights(networks.BAM) if ".experts.2.q_proj." not in n]
    with pytest.raises(ValueError, match=r"self_attn\.q_proj"):
        list(widen(weights, networks.BAM))


def marked_weights(architecture: Architecture) -> list[tuple[str, Tensor]]:
    """Return one block's attention weights, each filled with the number of its expert."""
    weights = []
    for name, shape in architecture.tensor_shapes().items():
        if name.startswith(ATTENTION):
            _, _, rest = name.partition(".experts.")
            weights.append((name, torch.full(shape, float(rest.split(".")[0] or 0))))
    return weights
