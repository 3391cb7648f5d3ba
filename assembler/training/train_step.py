"""One step of a finetune: loss, gradient, update; taken by all processes or by none."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.batches import Batch
from assembler.training.distributed import World, local_shard
from assembler.training.losses import (
    count_routing,
    domain_loss,
    load_balance,
    next_token_loss,
    z_loss,
)

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of a step, equal on all processes; a step that is not finite moves nothing.

    `loss` is the loss before the step. `routing_counts` [N, N] are those of
    `assembler.training.losses.count_routing`; empty for a network without experts.
    """

    loss: float
    gradient_norm: float
    routing_counts: Tensor

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of all tokens and blocks that chose each expert first."""
        return tuple((self.routing_counts.sum(0) / self.routing_counts.sum()).tolist())


def take_step(
    batch: Batch,
    *,
    network: Network,
    optimizer: torch.optim.Optimizer,
    recipe: Finetune,
    world: World,
) -> StepResult:
    """Take a step on this process's shard of a batch; `domain_weight` needs `domain_loss_q`."""
    uses_bfloat16 = recipe.dtype == "bfloat16"
    with torch.autocast(network.device.type, torch.bfloat16, enabled=uses_bfloat16):
        loss, routing_LTN = _total_loss(batch, network=network, recipe=recipe, world=world)
    value, norm = world.mean(loss.detach()).item(), math.nan
    if math.isfinite(value):
        torch.autograd.backward(loss)
        norm = _clip_gradient(network, world)
        if math.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
    counts_NN = world.mean(count_routing(routing_LTN, batch.per_token(batch.labels)).float())
    return StepResult(loss=value, gradient_norm=norm, routing_counts=counts_NN.cpu())


def _total_loss(
    batch: Batch, *, network: Network, recipe: Finetune, world: World
) -> tuple[Tensor, Tensor]:
    """Return the next-token loss plus the recipe's router losses, and the router logits.

    The logits are float32 [L, T, N]; L and N are 0 without experts.
    """
    a, router_logits = network.architecture, list[Tensor]()
    loss = network(
        batch.tokens,
        router_logits=router_logits,
        project_rows=a.has_projection,
        head=partial(
            next_token_loss,
            tokens_BT=batch.tokens,
            divisor=a.logit_divisor,
            soft_cap=a.logit_soft_cap,
        ),
    )
    if a.num_experts == 0:
        return loss, loss.new_zeros(0, batch.tokens.numel(), 0)
    routing_LTN = torch.stack(router_logits).float()
    if recipe.load_balance_weight:
        balance = load_balance(routing_LTN.softmax(-1), mean=world.mean)
        loss = loss + recipe.load_balance_weight * balance
    if recipe.z_loss_weight:
        loss = loss + recipe.z_loss_weight * z_loss(routing_LTN)
    if recipe.domain_weight:
        assert recipe.domain_loss_q is not None, "see assembler.training.domain_loss_choice"
        weights_T = batch.per_token(batch.weights)
        loss = loss + recipe.domain_weight * domain_loss(
            routing_LTN,
            batch.per_token(batch.labels),
            weights_T=weights_T,
            q=recipe.domain_loss_q,
        )
    return loss, routing_LTN.detach()


def _clip_gradient(network: Network, world: World) -> float:
    """Scale the whole gradient to a norm of at most `MAX_GRADIENT_NORM`; return its norm before.

    Each number of the gradient is held by exactly one process, however it is sharded.
    """
    gradients = [local_shard(p.grad) for p in network.parameters() if p.grad is not None]
    norm_tensor = torch.nn.utils.get_total_norm(gradients)
    if world.size > 1:
        norm_tensor = world.sum(norm_tensor.square()).sqrt()
    total_norm = norm_tensor.item()
    if total_norm > MAX_GRADIENT_NORM:
        for gradient in gradients:
            gradient.mul_(MAX_GRADIENT_NORM / total_norm)
    return total_norm
