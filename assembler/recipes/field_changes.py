"""Changes to some fields of a pydantic model: read them, name every mistake, list differences."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from registry.errors import Problem, pointer

Model = TypeVar("Model", bound=BaseModel)


def changed_fields(own: BaseModel, known: BaseModel, *, prefix: str = "") -> dict[str, Any]:
    """The fields of `known` in which `own` has another value, and that value; of a field that has
    fields itself these, as `field.field`."""
    changed: dict[str, Any] = {}
    for field, value in known:
        mine = getattr(own, field)
        if mine == value:
            continue
        if isinstance(mine, BaseModel) and isinstance(value, BaseModel):
            changed |= changed_fields(mine, value, prefix=f"{prefix}{field}.")
        else:
            changed[f"{prefix}{field}"] = mine
    return changed


def read(
    model: type[Model],
    known: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    at: str | None = None,
) -> tuple[Model, list[Problem]]:
    """A part of a recipe, `known` with those `changes` that are right, and what is wrong with the
    others; the part stands in the field `at` of a request.

    Of a field that has fields itself only those change that are named.
    """
    try:
        return model.model_validate(merged(known, changes)), []
    except ValidationError as error:
        mistakes = error.errors()
    where = () if at is None else (at,)
    problems = [Problem(pointer(*where, *e["loc"]), mistake_text(model, e)) for e in mistakes]
    places = [e["loc"] for e in mistakes if e["loc"]]
    # Where fields contradict each other none can be blamed alone.
    right = dict(changes) if places else {}
    for place in places:
        right = _without(right, place)
    made, more = read(model, known, right)
    return made, problems + more


def merged(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`known` with what `changes` names; of a field that has fields itself only those."""
    made = dict(known)
    for field, value in changes.items():
        own = made.get(field)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            value = merged(own, value)
        made[field] = value
    return made


def _without(changes: Mapping[str, Any], place: Sequence[str | int]) -> dict[str, Any]:
    """All but the change at `place`, or the nearest above it that can be left out."""
    field, *rest = place
    inner = changes.get(str(field))
    kept = {own: value for own, value in changes.items() if own != field}
    if rest and isinstance(inner, Mapping) and rest[0] in inner:
        kept[str(field)] = _without(inner, rest)
    return kept


def mistake_text(model: type[BaseModel], mistake: ErrorDetails) -> str:
    if mistake["type"] != "extra_forbidden":
        return mistake["msg"]
    for step in mistake["loc"][:-1]:
        inner = model.model_fields[str(step)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    fields = (field for field in model.model_fields if field != "preset")
    return f"is no field; there are {', '.join(fields)}"
