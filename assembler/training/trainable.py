"""Which tensors of a mix a finetune trains. Free of torch."""

from assembler.recipes.recipe import Trained
from registry.checkpoints.architecture import Architecture

DOMAIN_EMBEDDINGS = "model.domain_embeddings"

# Parts of tensor names that each part of a mix consists of. Routers are always trained together
# with the chosen part.
PARTS: dict[Trained, tuple[str, ...]] = {
    "router": (".mlp.gate.", ".self_attn.gate."),
    "attention": (".self_attn.",),
    "shared": (".mlp.shared_expert.",),
    "experts": (".mlp.experts.",),
    "all": ("",),
}


def has_part(mix: Architecture, train: Trained) -> bool:
    """Return whether `mix` has any tensor of the part `train`."""
    return any(part in name for name in mix.tensor_shapes() for part in PARTS[train])


def trains(name: str, mix: Architecture, train: Trained) -> bool:
    """Return whether a finetune of the part `train` updates this tensor of `mix` by gradient."""
    if is_folded(name, mix) or name == DOMAIN_EMBEDDINGS:
        return False
    return is_router(name) or any(part in name for part in PARTS[train])


def is_router(name: str) -> bool:
    """Return whether a tensor belongs to a router or to the projection that gives its rows."""
    return any(part in name for part in PARTS["router"])


def is_folded(name: str, mix: Architecture) -> bool:
    """Return whether a tensor is computed from trained ones: router rows follow the projection."""
    return name.endswith(".mlp.gate.weight") and mix.has_projection
