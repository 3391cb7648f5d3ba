"""A step lowers the loss, is bounded, and changes nothing where a number is not finite."""

import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.batches import Batch
from assembler.training.distributed import World
from assembler.training.optimizer import optimizer_of
from assembler.training.train_step import MAX_GRADIENT_NORM, StepResult, take_step
from registry.blobs.blobs import LocalBlobs
from tests.assembler import networks

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
RECIPE = Finetune(tokens=64, batch_size=3, sequence_length=8, dtype="float32", domain_loss_q=0.0)
TOKENS_BT = torch.arange(3, 27).view(3, 8)


@pytest.fixture
def network(blobs: LocalBlobs) -> Network:
    manifest = networks.store(blobs, networks.LINEAR)
    return Network.from_manifest(manifest, blobs, dtype=torch.float32).requires_grad_()


def step(network: Network, *, rate: float = 1e-3, recipe: Finetune = RECIPE) -> StepResult:
    batch = Batch(tokens=TOKENS_BT, labels=torch.arange(3), weights=torch.ones(3))
    optimizer = optimizer_of((parameter, rate) for parameter in network.parameters())
    return take_step(batch, network=network, optimizer=optimizer, recipe=recipe, world=ALONE)


def test_steps_lower_the_loss(network: Network) -> None:
    losses = [step(network).loss for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert not any(parameter.grad is not None for parameter in network.parameters())


def test_routing_is_counted_for_every_token_and_block(network: Network) -> None:
    result = step(network)
    num_blocks = networks.LINEAR.num_hidden_layers
    assert result.routing_counts.sum(1).tolist() == [8 * num_blocks] * 3
    assert sum(result.shares) == pytest.approx(1)


def test_each_loss_counts_with_its_weight(network: Network) -> None:
    def loss(**weights: float) -> float:
        none = {"domain_weight": 0.0, "load_balance_weight": 0.0, "z_loss_weight": 0.0}
        return step(network, rate=0.0, recipe=RECIPE.model_copy(update=none | weights)).loss

    plain = loss()
    for name in ("domain_weight", "load_balance_weight", "z_loss_weight"):
        once, twice = loss(**{name: 1.0}) - plain, loss(**{name: 2.0}) - plain
        assert once > 0
        assert twice == pytest.approx(2 * once, rel=1e-4)


def test_a_large_gradient_is_scaled(network: Network) -> None:
    seen: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.nn.utils.get_total_norm([g for g in gradients if g is not None]).item())

    handle = register_optimizer_step_pre_hook(look)
    heavy = RECIPE.model_copy(update={"domain_weight": 1000.0})
    result = step(network, recipe=heavy)
    handle.remove()
    assert result.gradient_norm > MAX_GRADIENT_NORM
    assert seen == pytest.approx([MAX_GRADIENT_NORM], rel=1e-4)


def test_a_loss_that_is_not_finite_changes_nothing(network: Network) -> None:
    with torch.no_grad():
        network.get_parameter("model.norm.weight")[0] = math.nan
    before = [parameter.detach().clone() for parameter in network.parameters()]
    result = step(network)
    assert math.isnan(result.loss)
    assert math.isnan(result.gradient_norm)
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter.nan_to_num(7), old.nan_to_num(7))
