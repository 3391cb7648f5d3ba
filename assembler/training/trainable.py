"""Which tensors of a mix a finetune trains. Free of torch."""

from collections.abc import Callable, Mapping

from assembler.recipes.recipe import Trained
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.tensor_names import (
    DOMAIN_EMBEDDINGS,
    is_attention,
    is_routed_expert,
    is_router,
    is_router_rows,
    is_shared_expert,
)

# Which tensors each part of a mix consists of. Routers are always trained together with the chosen
# part.
_IS_PART: Mapping[Trained, Callable[[str], bool]] = {
    "router": is_router,
    "attention": is_attention,
    "shared": is_shared_expert,
    "experts": is_routed_expert,
    "all": lambda name: True,
}


def has_part(mix: Architecture, train: Trained) -> bool:
    """Return whether `mix` has any tensor of the part `train`."""
    return any(map(_IS_PART[train], mix.tensor_shapes()))


def trains(name: str, mix: Architecture, train: Trained) -> bool:
    """Return whether a finetune of the part `train` updates this tensor of `mix` by gradient."""
    if is_folded(name, mix) or name == DOMAIN_EMBEDDINGS:
        return False
    return is_router(name) or _IS_PART[train](name)


def is_folded(name: str, mix: Architecture) -> bool:
    """Return whether a tensor is computed from trained ones: router rows follow the projection."""
    return is_router_rows(name) and mix.has_projection
