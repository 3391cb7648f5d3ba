"""Reads `FIELD=VALUE`, from a command line or a form, as fields of a request."""

import json
from collections.abc import Iterable
from typing import Any

from engine.gates.policy import STAGES
from registry import bounded_json
from registry.errors import InvalidInput, Problem, pointer

# Parts of a recipe. Their fields are written `PART.FIELD`.
PARTS = ("finetune", "compress", "gates")
# Prefixes that a field may have. `gates` is a policy, whose stages have fields too.
PATHS = ((), *((part,) for part in PARTS), *(("gates", stage) for stage in STAGES))
FORMS = (
    "FIELD=VALUE",
    "finetune.FIELD=VALUE",
    "compress.FIELD=VALUE",
    "gates.FIELD=VALUE",
    "gates.STAGE.FIELD=VALUE",
)
# Fields of a request that have their own argument or form field.
ELSEWHERE = frozenset({"name", "family", "experts", "expert", "by", "preset", "deploy", *PARTS})


def read(assignments: Iterable[str]) -> dict[str, Any]:
    """Return the fields as a nested mapping: `gates.served.sdt=1` sets gates -> served -> sdt.

    A value that is JSON becomes that value; any other value is a text. Only the service checks
    whether a field exists and takes the value. Raises InvalidInput for a text that is not an
    assignment, or sets a field that cannot be set here.
    """
    body: dict[str, Any] = {}
    problems: list[Problem] = []
    for text in assignments:
        path, equals, value = text.partition("=")
        *parts, field = path.strip().split(".")
        if not equals or not field or tuple(parts) not in PATHS:
            problems.append(Problem("", f"{text!r} is none of {', '.join(FORMS)}"))
        elif not parts and field in ELSEWHERE:
            detail = "cannot be set here: it has its own argument or form field"
            problems.append(Problem(pointer(field), detail))
        else:
            target = body
            for part in parts:
                target = target.setdefault(part, {})
            target[field] = value_of(value.strip())
    if problems:
        raise InvalidInput("these fields cannot be set", problems=tuple(problems))
    return body


def read_plain(assignments: Iterable[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` as a mapping; values as `read` has them. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"{text!r} is not NAME=VALUE")
        found[name.strip()] = value_of(value.strip())
    return found


def as_text(value: Any) -> str:
    """Return the text that `read` turns into this value."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(text: str) -> Any:
    """Return a JSON value as that value, any other text as it is."""
    try:
        return bounded_json.parse(text)
    except InvalidInput:
        return text
