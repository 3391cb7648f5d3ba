"""Read rotary embeddings from a `config.json` of any age, as transformers reads them.

transformers 5 has everything in `rope_parameters`. Older files have `rope_theta` at the top level
and the rest in `rope_scaling`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from registry.bases.base import Base
from registry.errors import Problem

# What each kind must have, and what it may have besides.
REQUIRED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
}
# The context of the pretraining: of these kinds it is written out.
ORIGINAL_CONTEXT = "original_max_position_embeddings"
KINDS_WITH_CONTEXT = ("llama3", "yarn")
PARTIAL = "partial_rotary_factor"
FULL, WINDOW = "full_attention", "sliding_attention"
LOCAL_THETA = 10_000.0

Rope = dict[str, Any]


def read(config: Mapping[str, Any], base: Base, *, context: object) -> tuple[Rope, list[Problem]]:
    """Return the rotary embeddings in the form of transformers 5, and what is wrong with them.

    `context` is the length that counts where a kind needs the context of the pretraining and does
    not name it. Of a base with embeddings by kind of layer the result has one for each.
    """
    parts = _parts(config, base)
    problems = [*_contradictions(config, base)]
    ropes: Rope = {}
    for layers, (given, theta) in parts.items():
        given.setdefault(PARTIAL, config.get(PARTIAL))
        ropes[layers] = _canonical(given, theta, context=context)
        problems += _wrong(ropes[layers], given, base)
    return (ropes if base.rope_by_layer else ropes[FULL]), problems


def theta_of(rope: Rope) -> object:
    """Return the base of the rotary embeddings of layers without a window."""
    return rope.get(FULL, rope)["rope_theta"]


def _parts(config: Mapping[str, Any], base: Base) -> dict[str, tuple[Rope, object]]:
    """Return what the config gives for each kind of layer, with the base of its angles."""
    top = config.get("rope_theta")
    top = base.rope_theta if top is None else top
    if not base.rope_by_layer:
        # In this order, as transformers: the old name replaces all of the new one.
        return {FULL: (_dict(config.get("rope_scaling") or config.get("rope_parameters")), top)}
    nested = _dict(config.get("rope_parameters"))
    full, window = (_dict(nested.get(kind)) for kind in (FULL, WINDOW))
    local = config.get("rope_local_base_freq")
    return {
        FULL: (full | _dict(config.get("rope_scaling")), top),
        WINDOW: (window, LOCAL_THETA if local is None else local),
    }


def _dict(rope: object) -> Rope:
    return dict(rope) if isinstance(rope, Mapping) else {"rope_type": rope} if rope else {}


def _canonical(given: Rope, theta: object, *, context: object) -> Rope:
    kind = given["rope_type"] if "rope_type" in given else given.get("type", "default")
    inner = given.get("rope_theta")
    rope = {"rope_type": kind, "rope_theta": theta if inner is None else inner}
    for name in (*REQUIRED.get(str(kind), ()), *OPTIONAL.get(str(kind), ())):
        if given.get(name) is not None:
            rope[name] = given[name]
    if kind in KINDS_WITH_CONTEXT:
        own = given.get(ORIGINAL_CONTEXT)
        rope[ORIGINAL_CONTEXT] = context if own is None else own
    if given[PARTIAL] not in (None, 1.0):
        rope[PARTIAL] = given[PARTIAL]
    return rope


def _wrong(rope: Rope, given: Rope, base: Base) -> Iterator[Problem]:
    kind, at = rope["rope_type"], "/config/rope_parameters"
    if kind not in base.ropes:
        yield Problem(f"{at}/rope_type", f"is {kind!r}, supported: {base.ropes}")
        return
    for name in REQUIRED[kind]:
        if name not in rope:
            yield Problem(f"{at}/{name}", f"is missing, which {kind!r} needs")
    if given.get("truncate", True) is not True:
        yield Problem(f"{at}/truncate", "is false, which is not supported")
    if PARTIAL in rope and not base.partial_rotary:
        yield Problem(f"/config/{PARTIAL}", f"is {rope[PARTIAL]!r}, supported: (1.0,)")
    for name, value in rope.items():
        if name not in ("rope_type", "rope_theta") and not is_positive(value):
            yield Problem(f"{at}/{name}", f"is {value!r}, expected a positive number")


def is_positive(value: object) -> bool:
    """Tell whether a value is a finite number above zero."""
    return isinstance(value, int | float) and value is not True and 0 < value < math.inf


def _contradictions(config: Mapping[str, Any], base: Base) -> Iterator[Problem]:
    """Yield the numbers of one meaning that differ, since programs take one or the other."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        if not isinstance(rope, Mapping):
            continue
        nested = {key for key, value in rope.items() if isinstance(value, Mapping)}
        if nested and not (base.rope_by_layer and nested <= {FULL, WINDOW}):
            yield Problem(f"/config/{name}", "differs between layers, which is not supported")
        if base.rope_by_layer and name == "rope_parameters" and rope.keys() - nested:
            detail = f"has {sorted(rope.keys() - nested)} beside {FULL!r} and {WINDOW!r}"
            yield Problem(f"/config/{name}", detail)
        inner = rope.get(FULL, {}) if nested else rope
        yield from _two_values(config, inner, name)


def _two_values(config: Mapping[str, Any], rope: Mapping[str, Any], name: str) -> Iterator[Problem]:
    top, inner = config.get("rope_theta"), rope.get("rope_theta")
    if None not in (top, inner) and top != inner:
        detail = f"is {top!r} at the top and {inner!r} in {name}: leave the wrong one out"
        yield Problem("/config/rope_theta", detail)
    kinds = {key: rope[key] for key in ("rope_type", "type") if rope.get(key) is not None}
    if len(set(map(repr, kinds.values()))) > 1:
        yield Problem(f"/config/{name}/type", f"contradicts rope_type: {kinds}")
