"""Read fields of `config.json` as transformers reads them: defaults, nulls, old spellings.

Files of many versions of transformers are around. What a field means is defined by the config class
of its base in transformers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field
from typing import Any, Literal, get_args, get_origin

from registry.bases import own_fields, rope
from registry.bases.base import Base
from registry.bases.supported import BASES, LLAMA, REFUSED
from registry.errors import Problem

# Far above every real model; the limits keep a hostile config.json from using much memory.
MAX_SIZE = 2**31
MAX_LAYERS = 1024

# What a field that is left out means, or null: the defaults of transformers' LlamaConfig.
DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
}
# Fields in which null means the same as no field at all. transformers refuses most of them as null.
NULLABLE = (
    *DEFAULTS,
    "head_dim",
    "num_key_value_heads",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "quantization_config",
)
# The type of a mix; `base_model_type` then names its base.
MIX = "nexus"


def without_nulls(config: dict[str, Any]) -> dict[str, Any]:
    """Return a `config.json` without the fields that are null and so mean their default.

    Other programs refuse null in them. A null of other fields has a meaning, such as no token.
    """
    return {k: v for k, v in config.items() if v is not None or k not in NULLABLE}


def read(
    config: dict[str, Any], wanted: Sequence[Field[Any]]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of the `wanted` fields of an architecture, and what is wrong with them."""
    base, problems = _base(config)
    if base is None:
        return {}, problems
    given = without_nulls(config)
    known = {field.name for field in wanted}
    values = {k: v for k, v in given.items() if k in known and v is not None}
    values = {k: v for k, v in (DEFAULTS | dict(base.defaults)).items() if k in known} | values
    if "num_attention_heads" in values and _means_all_heads(config, base):
        values["num_key_value_heads"] = values["num_attention_heads"]
    layers = values.get("num_hidden_layers")
    own, found = own_fields.read(
        given,
        base,
        num_layers=layers if isinstance(layers, int) and layers <= MAX_LAYERS else 0,
        context=values["max_position_embeddings"],
    )
    values["rope_theta"] = rope.theta_of(own[own_fields.ROPE])
    values["base_model_type"] = base.model_type
    values["base_fields"] = {} if _is_plain_llama(base, own) else own
    return values, [*problems, *found, *_invalid(values, wanted)]


def _base(config: Mapping[str, Any]) -> tuple[Base | None, list[Problem]]:
    """Return the base of a dense model or of a mix, or why there is none."""
    field, named = "model_type", config.get("model_type")
    if named == MIX:
        field, named = "base_model_type", config.get("base_model_type", LLAMA.model_type)
    if isinstance(named, str) and named in BASES:
        return BASES[named], []
    reason = REFUSED.get(named) if isinstance(named, str) else None
    because = f": {reason}" if reason else ""
    detail = f"is {named!r}, which is not supported{because}; supported: {', '.join(BASES)}"
    return None, [Problem(f"/config/{field}", detail)]


def _means_all_heads(config: Mapping[str, Any], base: Base) -> bool:
    """Tell whether there are as many key heads as heads: null, or left out without a default."""
    name = "num_key_value_heads"
    return config[name] is None if name in config else name not in base.defaults


def _is_plain_llama(base: Base, own: Mapping[str, Any]) -> bool:
    is_default = all(own[name] == field.default for name, field in base.fields.items())
    return base is LLAMA and is_default and own[own_fields.ROPE]["rope_type"] == "default"


def _invalid(values: Mapping[str, Any], wanted: Sequence[Field[Any]]) -> Iterator[Problem]:
    for field in wanted:
        at, value = f"/config/{field.name}", values.get(field.name)
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        least = 0 if has_default else 1
        if value is None:
            if not has_default and field.name != "head_dim":
                yield Problem(at, "is missing")
        elif field.type is int and not (type(value) is int and least <= value <= MAX_SIZE):
            yield Problem(at, f"is {value!r}, expected a whole number from {least} to {MAX_SIZE}")
        elif field.type is float and not (type(value) in (int, float) and 0 < value < math.inf):
            yield Problem(at, f"is {value!r}, expected a positive number")
        elif field.type is bool and type(value) is not bool:
            yield Problem(at, f"is {value!r}, expected true or false")
        elif get_origin(field.type) is Literal and value not in get_args(field.type):
            yield Problem(at, f"is {value!r}, supported: {get_args(field.type)}")
        elif get_origin(field.type) is tuple and not isinstance(value, list | tuple):
            yield Problem(at, f"is {value!r}, expected a list")
