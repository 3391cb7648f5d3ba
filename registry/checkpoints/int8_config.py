"""Read and write which linear layers of a checkpoint are int8, in the form of compressed-tensors.

`config.json` names them. There is one scheme, W8A8 dynamic: weights are symmetric int8 with a scale
for each output channel; inputs are rounded to int8 while the network runs, with a scale for each
token. An int8 layer has the integers in `weight` [O, I] and float32 scales in `weight_scale`
[O, 1].
"""

from collections.abc import Iterable, Mapping
from typing import Any

from registry.checkpoints.architecture import Shape
from registry.checkpoints.tensor_names import SCALE, WEIGHT
from registry.errors import InvalidCheckpoint, Problem

CONFIG_FIELD = "quantization_config"
# Our addition to that field; other programs ignore it.
LARGEST_FIELD = "largest_weight"

# Symmetric: -128 is not used.
LARGEST = 127
# x86 processors without VNNI shift inputs to 0..255 and add two products in 16 bits, with
# saturation. 2 * 255 * 64 still fits. (oneDNN, "Nuances of int8 computations".)
LARGEST_WITHOUT_VNNI = 64

_SYMMETRIC_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
_SCHEME = {
    "weights": _SYMMETRIC_INT8 | {"strategy": "channel", "dynamic": False},
    "input_activations": _SYMMETRIC_INT8 | {"strategy": "token", "dynamic": True},
}
_FORMAT = {"quant_method": "compressed-tensors", "format": "int-quantized"}


def quantization_config(modules: Iterable[str], *, largest_weight: int) -> dict[str, Any]:
    """Return the field of `config.json` that makes vLLM read the linear layers `modules` as int8.

    Each layer is listed, since fused layers look for the names of their parts. `largest_weight` is
    the largest absolute value of the integers.
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
    """Return the names of the int8 linear layers, none if the config has no quantization.

    Raises InvalidCheckpoint for any scheme except ours.
    """
    scheme = config.get(CONFIG_FIELD)
    if scheme is None:
        return frozenset()
    try:
        [group] = scheme["config_groups"].values()
        targets = frozenset(group["targets"])
        is_ours = scheme == quantization_config(targets, largest_weight=scheme[LARGEST_FIELD])
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
    """Return the largest integer of the int8 weights, 0 if there are none.

    Raises InvalidCheckpoint for any scheme except ours.
    """
    return int(config[CONFIG_FIELD][LARGEST_FIELD]) if int8_modules(config) else 0


def with_scales(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shapes of an architecture, with scales added for the int8 layers of a config.

    Raises InvalidCheckpoint for any scheme except ours, and for a layer that is not in `shapes`.
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
