"""Which tensors of a mix a finetune trains; told without loading what trains them."""

from assembler.recipes.recipe import Trained
from registry.checkpoints.architecture import Architecture

DOMAIN_EMBEDDINGS = "model.domain_embeddings"

# The routers always learn with what they route to.
PARTS: dict[Trained, tuple[str, ...]] = {
    "router": (".mlp.gate.", ".self_attn.gate."),
    "attention": (".self_attn.",),
    "shared": (".mlp.shared_expert.",),
    "experts": (".mlp.experts.",),
    "all": ("",),
}


def has_part(mix: Architecture, train: Trained) -> bool:
    """Whether there is anything in `mix` that `train` means."""
    return any(part in name for name in mix.tensor_shapes() for part in PARTS[train])


def trains(name: str, mix: Architecture, train: Trained) -> bool:
    """Whether a tensor of `mix` is trained by itself."""
    if is_folded(name, mix) or name == DOMAIN_EMBEDDINGS:
        return False
    return is_router(name) or any(part in name for part in PARTS[train])


def is_router(name: str) -> bool:
    """Whether a tensor is of a router, or of what a router's rows are folded from."""
    return any(part in name for part in PARTS["router"])


def is_folded(name: str, mix: Architecture) -> bool:
    """Whether a tensor is made of others that train: rows follow the projection."""
    return name.endswith(".mlp.gate.weight") and mix.has_projection
