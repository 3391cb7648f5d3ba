"""Change some fields of a pydantic model: read changes, report all mistakes, list differences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from registry.errors import Problem, pointer

Model = TypeVar("Model", bound=BaseModel)


def changed_fields(model: BaseModel, base: BaseModel, *, prefix: str = "") -> dict[str, Any]:
    """Return the fields of `model` that differ from `base`, with the values of `model`.

    Nested fields are named `field.field`, behind `prefix`.
    """
    changed: dict[str, Any] = {}
    for field, base_value in base:
        value = getattr(model, field)
        if value == base_value:
            continue
        if isinstance(value, BaseModel) and isinstance(base_value, BaseModel):
            changed |= changed_fields(value, base_value, prefix=f"{prefix}{field}.")
        else:
            changed[f"{prefix}{field}"] = value
    return changed


def read(
    model: type[Model],
    known: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    at: str | None = None,
) -> tuple[Model, list[Problem]]:
    """Apply the valid `changes` to the fields `known` of a model; return it with the problems.

    Nested fields are changed one by one; see `merge_changes`. Values must have the type of their
    field: neither `true` nor `"1"` is a number. `at` is the field of the request that holds the
    model, for the pointers of problems.
    """
    try:
        return model.model_validate(merge_changes(known, changes), strict=True), []
    except ValidationError as error:
        mistakes = error.errors()
    where = () if at is None else (at,)
    problems = [Problem(pointer(*where, *e["loc"]), mistake_text(model, e)) for e in mistakes]
    places = [e["loc"] for e in mistakes if e["loc"]]
    # If fields contradict each other, the error names no field, and all changes are dropped.
    valid = _without(changes, places) if places else {}
    changed, more = read(model, known, valid)
    return changed, problems + more


def merge_changes(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `known` with `changes`; nested mappings are merged field by field."""
    merged = dict(known)
    for field, value in changes.items():
        old = merged.get(field)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge_changes(old, value)
        merged[field] = value
    return merged


def _without(changes: Mapping[str, Any], places: Iterable[Sequence[str | int]]) -> dict[str, Any]:
    """Return the changes without those at `places`, or without their nearest parents in `changes`.

    All at once: one by one, the time would grow with the square of their number.
    """
    kept = dict(changes)
    inner_places: dict[str, list[Sequence[str | int]]] = {}
    for field, *rest in places:
        inner = changes.get(str(field))
        if rest and isinstance(inner, Mapping) and rest[0] in inner:
            inner_places.setdefault(str(field), []).append(rest)
        else:
            kept.pop(str(field), None)
    for field in kept.keys() & inner_places.keys():
        kept[field] = _without(kept[field], inner_places[field])
    return kept


def mistake_text(model: type[BaseModel], mistake: ErrorDetails) -> str:
    """Return pydantic's message; for an unknown field a message with the fields that exist."""
    if mistake["type"] != "extra_forbidden":
        return mistake["msg"]
    for step in mistake["loc"][:-1]:
        inner = model.model_fields[str(step)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    fields = (field for field in model.model_fields if field != "preset")
    return f"is no field; there are {', '.join(fields)}"
