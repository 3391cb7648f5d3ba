"""Which tensors train: routers always, rows that follow a projection never."""

import pytest

from assembler.recipes.recipe import Trained
from assembler.training import trainable
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.tensor_names import DOMAIN_EMBEDDINGS
from tests.assembler import networks


def trained(mix: Architecture, train: Trained) -> set[str]:
    """Return the names of the first block's trained tensors, without their common prefix."""
    names = (name for name in mix.tensor_shapes() if trainable.trains(name, mix, train))
    return {name.removeprefix("model.layers.0.") for name in names if ".layers.0." in name}


def test_a_projection_trains_instead_of_its_rows() -> None:
    names = trained(networks.NEXUS, "router")
    assert names == {"mlp.gate.projection.0.weight", "mlp.gate.projection.1.weight"}
    assert trainable.is_folded("model.layers.0.mlp.gate.weight", networks.NEXUS)


def test_a_plain_router_trains_its_rows() -> None:
    assert trained(networks.LINEAR, "router") == {"mlp.gate.weight"}


@pytest.mark.parametrize(
    ("train", "part"),
    [("attention", "self_attn."), ("shared", "mlp.shared_expert."), ("experts", "mlp.experts.")],
)
def test_a_part_trains_with_the_routers(train: Trained, part: str) -> None:
    names = trained(networks.LINEAR, train)
    assert {name for name in names if not name.startswith(part)} == {"mlp.gate.weight"}
    assert any(name.startswith(part) for name in names)


def test_all_is_all_but_domain_embeddings() -> None:
    mix = networks.NEXUS
    left_out = {name for name in mix.tensor_shapes() if not trainable.trains(name, mix, "all")}
    rows = {f"model.layers.{layer}.mlp.gate.weight" for layer in range(mix.num_hidden_layers)}
    assert left_out == rows | {DOMAIN_EMBEDDINGS}


def test_a_part_that_a_mix_does_not_have() -> None:
    assert not trainable.has_part(networks.BTX, "shared")
    assert trainable.has_part(networks.NEXUS, "shared")
