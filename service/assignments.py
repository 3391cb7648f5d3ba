"""`FIELD=VALUE`, as people write on a command line or in a form, as fields of a request."""

import json
from collections.abc import Iterable
from typing import Any, Never

from engine.gates.policy import STAGES
from registry.errors import InvalidInput, Problem, pointer

# Parts of a recipe whose fields are written `PART.FIELD`.
PARTS = ("finetune", "compress", "gates")
# Where fields may stand: a policy has parts itself.
PATHS = ((), *((part,) for part in PARTS), *(("gates", stage) for stage in STAGES))
FORMS = (
    "FIELD=VALUE",
    "finetune.FIELD=VALUE",
    "compress.FIELD=VALUE",
    "gates.FIELD=VALUE",
    "gates.STAGE.FIELD=VALUE",
)
# What a request says elsewhere.
OTHERS = frozenset({"name", "family", "experts", "expert", "by", "preset", "deploy", *PARTS})


def read(assignments: Iterable[str]) -> dict[str, Any]:
    """The fields of the recipe, and those of its parts below `finetune`, `compress` and `gates`; of
    the last, the stages of a policy have fields again.

    A value that is JSON is that number, truth value or list, any other a text. Whether there is
    such a field, and what it may be, the service knows. Raises InvalidInput for what is no
    assignment.
    """
    body: dict[str, Any] = {}
    problems: list[Problem] = []
    for text in assignments:
        path, equals, value = text.partition("=")
        *parts, field = path.strip().split(".")
        if not equals or not field or tuple(parts) not in PATHS:
            problems.append(Problem("", f"{text!r} is none of {', '.join(FORMS)}"))
        elif not parts and field in OTHERS:
            detail = "is no field of the recipe that could be set; it has a place of its own"
            problems.append(Problem(pointer(field), detail))
        else:
            target = body
            for part in parts:
                target = target.setdefault(part, {})
            target[field] = _value(value.strip())
    if problems:
        raise InvalidInput("these fields cannot be set", problems=tuple(problems))
    return body


def as_text(value: Any) -> str:
    """What `read` reads as this value."""
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> Never:
    """NaN and the infinities, which Python reads and no other JSON parser knows."""
    raise ValueError(constant)
