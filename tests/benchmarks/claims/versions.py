"""Versions of the code that makes mixes, which are part of the cache's keys.

Raise the version of what gives other results: only figures that depend on it are measured again.
"""

from dataclasses import asdict
from typing import Any

from assembler.assembly.inputs import MixInputs

# Assembly and readings.
VERSION = 1
FINETUNE = 5
# Mixes that are made from another mix.
EXTENSION = 2
# Finetunes with a load-balance loss or a z-loss.
ROUTER_LOSSES = "router losses 2"


def key_of(inputs: MixInputs) -> dict[str, Any]:
    """Return all inputs that a mix depends on: without tokens, nothing of the finetune.

    Without moments the average is the mean, and mixes have the keys that they always had.
    """
    recipe = inputs.recipe.model_dump(mode="json")
    if not inputs.recipe.finetune.tokens:
        recipe["finetune"] = None
    fields = asdict(inputs) | {"recipe": recipe}
    if not inputs.moments_digests:
        recipe.pop("averaging", None)
        del fields["moments_digests"], fields["base_moments_digests"]
    return fields


def of_mix(inputs: MixInputs) -> list[Any]:
    """Return the versions, beside VERSION, that a mix depends on."""
    finetune, versions = inputs.recipe.finetune, list[Any]()
    if finetune.tokens:
        versions.append(FINETUNE)
        if finetune.load_balance_weight or finetune.z_loss_weight:
            versions.append(ROUTER_LOSSES)
    if inputs.base_digest is not None:
        versions.append(EXTENSION)
    return versions
