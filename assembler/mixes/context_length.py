"""Check, before a job begins, that what it writes and reads fits into the context of the mix."""

from collections.abc import Iterator

from assembler.recipes.recipe import Recipe
from engine.vllm_server.context import context_tokens
from registry.checkpoints.architecture import Architecture
from registry.errors import Problem


def problems(recipe: Recipe, mix: Architecture) -> Iterator[Problem]:
    """Report lengths of the finetune, the compression and the gate beyond the context of a mix."""
    own, served = mix.max_position_embeddings, context_tokens(mix)
    if recipe.finetune.num_steps and recipe.finetune.sequence_length > own:
        detail = f"is {recipe.finetune.sequence_length}, the model has a context of {own} tokens"
        yield Problem("/finetune/sequence_length", detail)
    if recipe.compress is not None:
        yield from _texts(
            "/compress",
            recipe.compress.prefix_tokens,
            recipe.compress.completion_tokens,
            context=own,
        )
    # The engine has room for one token after the text that it reads.
    gates = recipe.gates
    yield from _texts(
        "/gates", gates.prefix_tokens, gates.completion_tokens, context=served, after=1
    )


def _texts(
    at: str, prefix: int, completion: int, *, context: int, after: int = 0
) -> Iterator[Problem]:
    """Report a prefix and its completion that are too long together, at the longer of the two."""
    if prefix + completion + after > context:
        field = "prefix_tokens" if prefix >= completion else "completion_tokens"
        yield Problem(
            f"{at}/{field}",
            f"a prefix of {prefix} tokens and a completion of {completion} are"
            f" {prefix + completion}, the context of the mix has room for {context - after}",
        )
