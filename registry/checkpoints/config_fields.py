"""Read fields of `config.json` as transformers reads them: defaults, nulls, two spellings of RoPE.

Files of many versions of transformers are around. What a field means is defined by its LlamaConfig.
"""

from collections.abc import Iterator
from typing import Any

from registry.errors import Problem

# What a field that is left out means, or null: the defaults of transformers' LlamaConfig.
DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
}
DEFAULT_ROPE_THETA = 10_000.0
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


def without_nulls(config: dict[str, Any]) -> dict[str, Any]:
    """Return a `config.json` without the fields that are null and so mean their default.

    Other programs refuse null in them. A null of other fields has a meaning, such as no token.
    """
    return {k: v for k, v in config.items() if v is not None or k not in NULLABLE}


def rope_theta(config: dict[str, Any]) -> object:
    """Return the base of the rotary embeddings as it stands in a config, or its default."""
    # transformers 5 moved the value into rope_parameters; older files have it at the top level.
    theta = _rope(config).get("rope_theta")
    theta = config.get("rope_theta") if theta is None else theta
    return DEFAULT_ROPE_THETA if theta is None else theta


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    # In this order, as transformers: the old name replaces all of the new one.
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return rope if isinstance(rope, dict) else {"rope_type": rope}


def _rope_type(rope: dict[str, Any]) -> object:
    return rope["rope_type"] if "rope_type" in rope else rope.get("type", "default")


def unsupported(config: dict[str, Any]) -> list[Problem]:
    """Return the fields that ask for a network which is not supported, or contradict each other."""
    rope = _rope(config)
    config = DEFAULTS | without_nulls(config)
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    expected: dict[str, tuple[object, tuple[object, ...]]] = {
        "model_type": (config.get("model_type"), ("llama", "nexus")),
        "hidden_act": (config["hidden_act"], ("silu",)),
        "attention_bias": (config["attention_bias"], (False,)),
        "mlp_bias": (config["mlp_bias"], (False,)),
        "rope_parameters/rope_type": (_rope_type(rope), ("default",)),
        "partial_rotary_factor": (partial, (1.0,)),
    }
    problems = [
        Problem(f"/config/{name}", f"is {value!r}, supported: {allowed}")
        for name, (value, allowed) in expected.items()
        if value not in allowed
    ]
    return [*problems, *_rope_contradictions(config)]


def _rope_contradictions(config: dict[str, Any]) -> Iterator[Problem]:
    """Yield the numbers of one meaning that differ, since programs take one or the other."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        if not isinstance(rope, dict):
            continue
        if any(isinstance(value, dict) for value in rope.values()):
            yield Problem(f"/config/{name}", "differs between layers, which is not supported")
        top, inner = config.get("rope_theta"), rope.get("rope_theta")
        if None not in (top, inner) and top != inner:
            detail = f"is {top!r} at the top and {inner!r} in {name}: leave the wrong one out"
            yield Problem("/config/rope_theta", detail)
        kinds = {key: rope[key] for key in ("rope_type", "type") if rope.get(key) is not None}
        if len(set(map(repr, kinds.values()))) > 1:
            yield Problem(f"/config/{name}/type", f"contradicts rope_type: {kinds}")
