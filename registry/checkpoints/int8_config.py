"""Which linear layers of a checkpoint are int8, as its `config.json` says it to compressed-tensors.

One scheme, W8A8 dynamic: weights are symmetric int8 with a scale for each output channel, inputs
are rounded to int8 while the network runs, with a scale for each token. Of a layer that is int8,
`weight` [O, I] holds the integers, and beside it stands `weight_scale` [O, 1] in float32.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from registry.checkpoints.architecture import Shape
from registry.checkpoints.tensor_names import SCALE, WEIGHT
from registry.errors import InvalidCheckpoint, Problem

CONFIG_FIELD = "quantization_config"
# Ours, inside that field; readers of others pass it by.
LARGEST_FIELD = "largest_weight"

# Symmetric: -128 is not used.
LARGEST = 127
# x86 processors without VNNI add two products in 16 bits, inputs shifted to 0..255, and cut off
# what does not fit: 2 * 255 * 64 does. (oneDNN, "Nuances of int8 computations".)
LARGEST_WITHOUT_VNNI = 64

_SYMMETRIC_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
_SCHEME = {
    "weights": _SYMMETRIC_INT8 | {"strategy": "channel", "dynamic": False},
    "input_activations": _SYMMETRIC_INT8 | {"strategy": "token", "dynamic": True},
}
_FORMAT = {"quant_method": "compressed-tensors", "format": "int-quantized"}


def quantization_config(modules: Iterable[str], *, largest_weight: int) -> dict[str, Any]:
    """The field of a `config.json` that makes vLLM read the linear layers `modules` as int8.

    They are named one by one: what fuses some of them looks for each under its own name. No integer
    of a weight is above `largest_weight`.
    """
    group = {"targets": sorted(modules), **_SCHEME}
    return {
        **_FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [],
        LARGEST_FIELD: largest_weight,
    }


def int8_modules(config: Mapping[str, Any]) -> frozenset[str]:
    """Names of the linear layers that are int8; none where nothing is said of quantization.

    Raises InvalidCheckpoint for any other scheme than ours.
    """
    said = config.get(CONFIG_FIELD)
    if said is None:
        return frozenset()
    try:
        [group] = said["config_groups"].values()
        targets = frozenset(group["targets"])
        is_ours = said == quantization_config(targets, largest_weight=said[LARGEST_FIELD])
    except (AttributeError, KeyError, TypeError, ValueError):
        is_ours = False
    if not is_ours:
        detail = "is another scheme than int8 weights by channel and int8 inputs by token"
        raise InvalidCheckpoint(
            "this quantization is not supported",
            problems=(Problem(f"/config/{CONFIG_FIELD}", detail),),
        )
    return targets


def largest_weight(config: Mapping[str, Any]) -> int:
    """The largest integer of its int8 weights, 0 where there are none. Raises InvalidCheckpoint."""
    return int(config[CONFIG_FIELD][LARGEST_FIELD]) if int8_modules(config) else 0


def with_scales(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> dict[str, Shape]:
    """The tensors of an architecture as this checkpoint has them: int8 weights with their scales.

    Raises InvalidCheckpoint as `int8_modules`, and for a layer that the architecture does not have.
    """
    modules = int8_modules(config)
    if strays := sorted(module for module in modules if len(shapes.get(module + WEIGHT, ())) != 2):
        raise InvalidCheckpoint(
            "what is int8 has no place in this model",
            problems=tuple(Problem(f"/config/{CONFIG_FIELD}", name) for name in strays),
        )
    stored: dict[str, Shape] = {}
    for name, shape in shapes.items():
        stored[name] = shape
        if name.removesuffix(WEIGHT) in modules:
            stored[name.removesuffix(WEIGHT) + SCALE] = (shape[0], 1)
    return stored
