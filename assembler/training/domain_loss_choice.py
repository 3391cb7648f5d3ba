"""Which loss tells routers the domain of each text: settled once, where a finetune starts."""

from collections.abc import Iterable

import torch
from torch import Tensor

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.batches import Batch, DomainBatches
from assembler.training.distributed import World, reshard
from assembler.training.losses import choices

# The share that goes astray teaches nothing where a router is sure of another expert. Where 0.41 to
# 0.51 of the tokens went right, a short finetune by it ended worse than it began; where 0.88 did it
# was a tie with cross-entropy, and an extension took less from the old domains; CLAIMS.md.
SURE_SHARE = 0.75
# So many tokens are looked at; of what a default finetune of six experts costs, a hundredth.
LOOKED_AT_TOKENS = 2048


def settle(recipe: Finetune, batches: DomainBatches, *, network: Network, world: World) -> Finetune:
    """The recipe with its `domain_loss_q`, if it needs one and names none.

    By where the first batches go, before anything is trained: 1 where at least `SURE_SHARE` of the
    tokens choose the expert of their text, else 0. All processes come to the same.
    """
    has_labels = network.architecture.num_experts > 0 and recipe.domain_weight > 0
    if recipe.domain_loss_q is not None or not has_labels:
        return recipe
    step_tokens = recipe.batch_size * recipe.sequence_length
    num_steps = min(recipe.num_steps, -(-LOOKED_AT_TOKENS // step_tokens))
    first = (
        batches.batch(step).part(world.rank, of=world.size, device=world.device)
        for step in range(num_steps)
    )
    share = share_to_own(first, network=network, recipe=recipe, world=world)
    return recipe.model_copy(update={"domain_loss_q": 1.0 if share >= SURE_SHARE else 0.0})


@torch.no_grad()
def share_to_own(
    batches: Iterable[Batch], *, network: Network, recipe: Finetune, world: World
) -> float:
    """Of the tokens of each domain, the share that chooses its own expert first: mean over blocks
    and over the domains that there are tokens of."""
    chosen_NN = torch.zeros(())
    for batch in batches:
        chosen_NN = chosen_NN + _choices(batch, network, lowers=recipe.dtype == "bfloat16").cpu()
    chosen_NN = world.sum(chosen_NN.to(world.device)).cpu()
    reshard(network)
    seen = chosen_NN.sum(1) > 0
    return (chosen_NN.diagonal() / chosen_NN.sum(1))[seen].mean().item()


def _choices(batch: Batch, network: Network, *, lowers: bool) -> Tensor:
    router_logits: list[Tensor] = []
    with torch.autocast(network.device.type, torch.bfloat16, enabled=lowers):
        network(batch.tokens, router_logits=router_logits, head=lambda x_BTD, _: x_BTD)
    return choices(torch.stack(router_logits), batch.per_token(batch.labels))
