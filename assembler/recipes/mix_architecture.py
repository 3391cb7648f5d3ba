"""Compute the architecture of a mix from its recipe and the architecture of its family."""

from dataclasses import replace

from assembler.recipes.recipe import Recipe
from registry.checkpoints.architecture import Architecture, projection_shapes
from registry.errors import Incompatible

# Name of the seed as a routed expert; it is always the last one.
SEED = "seed"


def expert_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the routed experts of a mixture, in their order."""
    return recipe.domains if recipe.shared_expert else (*recipe.domains, SEED)


def mixture_of(recipe: Recipe, dense: Architecture, *, vector_size: int) -> Architecture:
    """Return the mixture that a recipe makes of experts with the architecture `dense`.

    `vector_size` is the size of the text encoder's vectors; only some routers use it. Raises
    Incompatible if the recipe contradicts itself.
    """
    # Domain embeddings have a constant as an additional coordinate.
    embedding_size = (vector_size if recipe.embeds_with_encoder else dense.hidden_size) + 1
    names = expert_names(recipe)
    mix = replace(
        dense,
        num_experts=len(names),
        num_experts_per_tok=recipe.experts_per_token,
        expert_names=names,
        shared_expert=recipe.shared_expert,
        combine=recipe.combine,
        router=recipe.router,
        attention=recipe.attention,
        domain_embedding_size=embedding_size if recipe.router == "nexus" else 0,
        norm_topk_prob=recipe.norm_topk_prob,
        num_attention_experts_per_tok=recipe.attention_experts_per_token,
        router_hidden_size=_hidden_size(recipe, dense, len(names), embedding_size),
    )
    if problems := tuple(mix.contradictions()):
        raise Incompatible("this recipe contradicts itself", problems=problems)
    return mix


def _hidden_size(recipe: Recipe, dense: Architecture, num_experts: int, embedding_size: int) -> int:
    """Return R of an `mlp` router with as many parameters as a projection: 2DM + D²."""
    if recipe.router != "mlp":
        return 0
    shapes = projection_shapes(dense.hidden_size, embedding_size).values()
    return sum(rows * columns for rows, columns in shapes) // (dense.hidden_size + num_experts)
