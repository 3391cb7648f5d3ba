"""One step of a finetune: a loss, its gradient, an update; on all processes or on none."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.batches import Batch
from assembler.training.distributed import World, local
from assembler.training.losses import choices, domain_loss, load_balance, next_token_loss, z_loss

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A step as all processes saw it; nothing has moved where a number is not finite.

    `loss` is that before the step, `choices` [N, N] what `assembler.training.losses.choices`
    counts; of a
    network without experts it is empty.
    """

    loss: float
    gradient_norm: float
    choices: Tensor

    @property
    def shares(self) -> tuple[float, ...]:
        """Of all tokens and blocks, the share that chose each expert first."""
        return tuple((self.choices.sum(0) / self.choices.sum()).tolist())


def descend(
    batch: Batch,
    *,
    network: Network,
    optimizer: torch.optim.Optimizer,
    recipe: Finetune,
    world: World,
) -> Taken:
    """Take a step on this process's part of a batch. A `domain_weight` needs a `domain_loss_q`."""
    lowers = recipe.dtype == "bfloat16"
    with torch.autocast(network.device.type, torch.bfloat16, enabled=lowers):
        loss, routing_LTN = _total_loss(batch, network=network, recipe=recipe, world=world)
    value, norm = world.mean(loss.detach()).item(), math.nan
    if math.isfinite(value):
        torch.autograd.backward(loss)
        norm = _clip_gradient(network, world)
        if math.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
    chosen_NN = world.mean(choices(routing_LTN, batch.per_token(batch.labels)).float())
    return Taken(loss=value, gradient_norm=norm, choices=chosen_NN.cpu())


def _total_loss(
    batch: Batch, *, network: Network, recipe: Finetune, world: World
) -> tuple[Tensor, Tensor]:
    """Next-token cross-entropy plus what the recipe asks of routers, and the logits of those.

    They are float32 [L, T, N], L and N being 0 without experts.
    """
    a, router_logits = network.architecture, list[Tensor]()
    loss = network(
        batch.tokens,
        router_logits=router_logits,
        project_rows=a.has_projection,
        head=partial(next_token_loss, tokens_BT=batch.tokens),
    )
    if a.num_experts == 0:
        return loss, loss.new_zeros(0, batch.tokens.numel(), 0)
    routing_LTN = torch.stack(router_logits).float()
    p_LTN = routing_LTN.softmax(-1)
    if recipe.load_balance_weight:
        loss = loss + recipe.load_balance_weight * load_balance(p_LTN, mean=world.mean)
    if recipe.z_loss_weight:
        loss = loss + recipe.z_loss_weight * z_loss(routing_LTN)
    if recipe.domain_weight:
        assert recipe.domain_loss_q is not None, "see assembler.training.domain_loss_choice"
        weights_T = batch.per_token(batch.weights)
        loss = loss + recipe.domain_weight * domain_loss(
            p_LTN,
            batch.per_token(batch.labels),
            weights_T=weights_T,
            q=recipe.domain_loss_q,
        )
    return loss, routing_LTN.detach()


def _clip_gradient(network: Network, world: World) -> float:
    """Shorten the whole gradient to at most `MAX_GRADIENT_NORM`; returns how long it was.

    Each number of it is kept by one process, whatever mesh it is spread over.
    """
    gradients = [local(p.grad) for p in network.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if world.size > 1:
        norm = world.sum(norm.square()).sqrt()
    length = norm.item()
    if length > MAX_GRADIENT_NORM:
        for gradient in gradients:
            gradient.mul_(MAX_GRADIENT_NORM / length)
    return length
