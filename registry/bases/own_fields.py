"""Read the fields of a base's own from its `config.json`, with the defaults of transformers."""

from collections.abc import Iterator, Mapping
from typing import Any

from registry.bases import rope
from registry.bases.base import Base, Field
from registry.errors import Problem

ROPE = "rope_parameters"
LAYER_TYPES = "layer_types"


def read(
    config: Mapping[str, Any], base: Base, *, num_layers: int, context: object
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of the base's own fields, and what is wrong with them.

    They are in the form in which transformers writes them today. `context` is
    `max_position_embeddings`.
    """
    own: dict[str, Any] = {}
    problems = [*_not_supported(config, base)]
    own[ROPE], found = rope.read(config, base, context=context)
    problems += found
    for name, field in base.fields.items():
        value = config.get(name, field.default)
        if field.kind == "flags of layers":
            value = _flags(config, name, field, num_layers)
        own[name] = value
        problems += _wrong(name, value, field, num_layers)
    types = _layer_types(config, base, num_layers)
    if base.windows == "by layer":
        own[LAYER_TYPES] = types
    problems += _wrong_types(types, base, num_layers)
    return own, problems


def _not_supported(config: Mapping[str, Any], base: Base) -> Iterator[Problem]:
    activation = config.get(base.activation_field)
    if activation not in (None, base.config_activation):
        detail = f"is {activation!r}, supported: {(base.config_activation,)}"
        yield Problem(f"/config/{base.activation_field}", detail)
    for name, allowed in base.fixed.items():
        if (value := config.get(name, allowed[0])) not in allowed:
            yield Problem(f"/config/{name}", f"is {value!r}, supported: {allowed[:1]}")


def _flags(config: Mapping[str, Any], name: str, field: Field, num_layers: int) -> object:
    """Return one flag for each layer; where they are left out, every n-th is 0."""
    if (flags := config.get(name)) is not None:
        return flags
    period = config.get("no_rope_layer_interval", field.default)
    if type(period) is not int or period < 1:
        return period
    return [int((layer + 1) % period != 0) for layer in range(num_layers)]


def _layer_types(config: Mapping[str, Any], base: Base, num_layers: int) -> object:
    if (types := config.get(LAYER_TYPES)) is not None:
        return types
    if base.windows != "by layer":
        return None
    period = config.get("sliding_window_pattern", base.window_period)
    if type(period) is not int or period < 1:
        return period
    return [rope.WINDOW if (layer + 1) % period else rope.FULL for layer in range(num_layers)]


def _wrong_types(types: object, base: Base, num_layers: int) -> Iterator[Problem]:
    at = f"/config/{LAYER_TYPES}"
    if types is None:
        return
    if base.windows == "all":
        yield Problem(at, "is not supported: the window holds for all layers")
        return
    known = (rope.FULL, rope.WINDOW) if base.windows == "by layer" else (rope.FULL,)
    if not isinstance(types, list) or len(types) != num_layers:
        yield Problem(at, f"is {types!r}, expected a list of {num_layers} kinds of layers")
    elif strays := [kind for kind in types if kind not in known]:
        yield Problem(at, f"has {strays[0]!r}, supported: {known}")


def _wrong(name: str, value: object, field: Field, num_layers: int) -> Iterator[Problem]:
    at = f"/config/{name}"
    if value is None and field.kind.endswith("or null"):
        return
    match field.kind:
        case "flag":
            if type(value) is not bool:
                yield Problem(at, f"is {value!r}, expected true or false")
        case "flags of layers":
            is_list = isinstance(value, list) and all(flag in (0, 1) for flag in value)
            if not is_list or len(value) != num_layers:  # type: ignore[arg-type]
                yield Problem(at, f"is {value!r}, expected 0 or 1 for each of {num_layers} layers")
        case "size" | "size or null":
            if type(value) is not int or value < 1:
                yield Problem(at, f"is {value!r}, expected a whole number from 1")
        case "number" | "number or null":
            if not rope.is_positive(value):
                yield Problem(at, f"is {value!r}, expected a positive number")
