"""Choose the loss that trains routers on domains, once, before a finetune begins."""

from collections.abc import Iterable

import torch
from torch import Tensor

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.batches import Batch, DomainBatches
from assembler.training.distributed import World, reshard
from assembler.training.losses import count_routing

# Least share of tokens routed to their own expert for the loss with q = 1. That loss teaches
# nothing where a router is sure of another expert. At shares of 0.41 to 0.51 a short finetune with
# it ended worse than it began. At 0.88 it tied with cross-entropy, and an extension lost less on
# the old domains (see the results page on claims).
SURE_SHARE = 0.75
# Tokens that are routed to choose the loss: a hundredth of the cost of a default finetune of six
# experts.
SAMPLE_TOKENS = 2048


def choose_domain_loss(
    recipe: Finetune, batches: DomainBatches, *, network: Network, world: World
) -> Finetune:
    """Return the recipe with a `domain_loss_q`, if it needs one and sets none.

    The choice depends on how the first batches are routed before anything is trained: 1 when at
    least `SURE_SHARE` of the tokens choose the expert of their text, else 0. All processes make the
    same choice.
    """
    has_labels = network.architecture.num_experts > 0 and recipe.domain_weight > 0
    if recipe.domain_loss_q is not None or not has_labels:
        return recipe
    step_tokens = recipe.batch_size * recipe.sequence_length
    num_steps = min(recipe.num_steps, -(-SAMPLE_TOKENS // step_tokens))
    first = (
        batches.batch(step).shard(world.rank, num_shards=world.size, device=world.device)
        for step in range(num_steps)
    )
    share = own_expert_share(first, network=network, recipe=recipe, world=world)
    return recipe.model_copy(update={"domain_loss_q": 1.0 if share >= SURE_SHARE else 0.0})


@torch.no_grad()
def own_expert_share(
    batches: Iterable[Batch], *, network: Network, recipe: Finetune, world: World
) -> float:
    """Return the share of a domain's tokens that choose its own expert first.

    The mean over blocks and over the domains that have tokens.
    """
    counts_NN = torch.zeros(())
    for batch in batches:
        counts_NN = (
            counts_NN
            + _count_batch_routing(batch, network, uses_bfloat16=recipe.dtype == "bfloat16").cpu()
        )
    counts_NN = world.sum(counts_NN.to(world.device)).cpu()
    reshard(network)
    seen = counts_NN.sum(1) > 0
    return (counts_NN.diagonal() / counts_NN.sum(1))[seen].mean().item()


def _count_batch_routing(batch: Batch, network: Network, *, uses_bfloat16: bool) -> Tensor:
    """Return the routing counts [N, N] of one batch, see
    `assembler.training.losses.count_routing`."""
    router_logits: list[Tensor] = []
    with torch.autocast(network.device.type, torch.bfloat16, enabled=uses_bfloat16):
        network(batch.tokens, router_logits=router_logits, head=lambda x_BTD, _: x_BTD)
    return count_routing(torch.stack(router_logits), batch.per_token(batch.labels))
