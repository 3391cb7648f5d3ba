"""Read JSON that a stranger has written: bounded, unambiguous, and with values that can be kept.

A JSON text of some MB can need GB as Python objects, names may occur twice, numbers may be infinite
and texts may hold what no database stores. All of these are refused here, before or while they are
read.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Never

from registry.errors import InvalidInput, Problem, pointer
from registry.texts import UNFIT, name_of_character

MAX_DEPTH = 64
# A dense checkpoint of 400 billion parameters has about 1,200 tensors.
MAX_ELEMENTS = 200_000
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
MAX_DIGITS = len(str(MAX_INTEGER))

# A string, closed or not. It never gives characters back, so it takes linear time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def parse(
    data: bytes | str,
    *,
    max_elements: int = MAX_ELEMENTS,
    max_depth: int = MAX_DEPTH,
    unfit: re.Pattern[str] = UNFIT,
) -> Any:
    """Return the value of a JSON text in UTF-8.

    `unfit` finds characters that its texts must not hold. Raises InvalidInput, with one sentence
    and a pointer into the value where there is one: for what is not JSON, more values or a greater
    depth than allowed, a name that occurs twice in an object, a number that is not finite or an
    integer of more than 64 bits, and an unfit character.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    check_bounds(raw, max_elements=max_elements, max_depth=max_depth)
    try:
        text = raw.decode()
        value = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise _refused(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _refused(f"not JSON: {_reason(error)} at {where}") from error
    except RecursionError as error:
        raise _refused(f"deeper than {max_depth} levels") from error
    # Control characters stand in JSON as escapes only, so most texts need no walk.
    suspicious = "\\u" in text or unfit.search(text)
    for at, problem in _unfit_texts(value, unfit) if suspicious else ():
        raise InvalidInput(f"{at} {problem}", problems=(Problem(at, problem),))
    return value


def check_bounds(raw: bytes, *, max_elements: int, max_depth: int = MAX_DEPTH) -> None:
    """Count values and levels without making any. Raises InvalidInput."""
    # Strings count too at first; most texts are far below the limit all the same.
    if _num_elements(raw) <= max_elements and raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    bare = _STRING.sub(b"", raw)
    if (count := _num_elements(bare)) > max_elements:
        raise _refused(f"about {count} values, at most {max_elements} are accepted")
    depth = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in (b"[", b"{") else -1
        if depth > max_depth:
            raise _refused(f"deeper than {max_depth} levels")


def _num_elements(raw: bytes) -> int:
    """Return an upper bound of the number of values and names."""
    return 1 + sum(map(raw.count, (b",", b":", b"[", b"{")))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _refused(f"the name {name!r} occurs twice in one object")
            seen.add(name)
    return content


def _refuse_constant(name: str) -> Never:
    raise _refused(f"not JSON: {name} is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _refused(f"the number {text[:40]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS or not MIN_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        raise _refused(f"the number {text[:40]} is too large")
    return number


def _reason(error: json.JSONDecodeError) -> str:
    if error.doc.startswith("\ufeff"):
        return "a byte-order mark"
    # What follows `Expecting` names what is missing; a comma before `}` or `]` is one too many.
    before = error.doc[: error.pos].rstrip()
    after = error.doc[error.pos :].lstrip()
    if before.endswith(",") and after[:1] in ("}", "]"):
        return "a comma after the last entry"
    return (error.msg[:1].lower() + error.msg[1:]).removesuffix(" at")


def _unfit_texts(value: Any, unfit: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield the pointer of each text or name with an unfit character, and what it holds."""
    open_values: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while open_values:
        path, value = open_values.pop()
        if isinstance(value, str):
            if found := unfit.search(value):
                yield pointer(*path), _holds(found)
        elif isinstance(value, list):
            open_values += [((*path, index), item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            for name, item in value.items():
                if found := unfit.search(name):
                    yield pointer(*path), f"has a name that {_holds(found)}"
                open_values.append(((*path, name), item))


def _holds(found: re.Match[str]) -> str:
    return f"holds {name_of_character(found[0])}, at character {found.start() + 1}"


def _refused(detail: str) -> InvalidInput:
    return InvalidInput(detail, problems=(Problem("", detail),))
