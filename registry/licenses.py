"""The license of what is made from several works, each under its own: SPDX expressions.

What a license asks for is told by its category in ScanCode's database, which comes with
`license_expression`. It helps to notice a conflict early; it is no legal advice.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from license_expression import (  # type: ignore[import-untyped]  # it has no annotations
    ExpressionError,
    ExpressionParseError,
    LicenseExpression,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    Licensing,
    get_license_index,
    get_spdx_licensing,
)

FREE = ("Permissive", "Public Domain")
COPYLEFT = ("Copyleft", "Copyleft Limited")

UNKNOWN = "is no license that SPDX knows: what it allows has to be read by a person"
NON_COMMERCIAL = "forbids commercial use"
NO_DERIVATIVES = "forbids to share what is made from it"
SHARE_ALIKE = "asks that what is made from it be shared under the same license"
RESTRICTED = "restricts what the result may be used for"


def combined(expressions: Iterable[str]) -> str:
    """The license of a work made from works under `expressions`: all of them at once.

    What cannot be read as an expression takes part as a `LicenseRef-` of its own.
    """
    distinct = sorted({str(_parsed(text)) for text in expressions})
    together = " AND ".join(f"({text})" for text in distinct)
    return str(_licensing().parse(together).simplify())


def concerns(licenses: Mapping[str, str]) -> list[str]:
    """A sentence for everything in the licenses of owners that binds what is made from all.

    Of a choice (`MIT OR GPL-3.0-only`) the alternative that binds least counts.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for owner, text in licenses.items():
        for term in _terms(_parsed(text)):
            found.setdefault(term, []).append(owner)
    sentences = [
        f"{license}, brought by {', '.join(owners)}, {term}"
        for (license, term), owners in found.items()
    ]
    alike = sorted({license for license, term in found if term == SHARE_ALIKE})
    if len(alike) > 1:
        sentences.append(f"{' and '.join(alike)} each ask that the result be under them alone")
    return sentences


def _terms(expression: LicenseExpression) -> set[tuple[str, str]]:
    """What binds, as (license, term)."""
    if isinstance(expression, LicenseWithExceptionSymbol):
        return {(str(expression), term) for term in _of_key(expression.license_symbol.key)}
    if isinstance(expression, LicenseSymbol):
        return {(expression.key, term) for term in _of_key(expression.key)}
    operands = [_terms(operand) for operand in expression.args]
    if isinstance(expression, _licensing().OR):
        return min(operands, key=len)
    return set().union(*operands)


def _of_key(key: str) -> Iterator[str]:
    category = _categories().get(key)
    parts = key.split("-")
    if category is None:
        yield UNKNOWN
        return
    if "NC" in parts:
        yield NON_COMMERCIAL
    if "ND" in parts:
        yield NO_DERIVATIVES
    if "SA" in parts or category in COPYLEFT:
        yield SHARE_ALIKE
    elif category not in FREE and not {"NC", "ND"} & set(parts):
        yield RESTRICTED


def _parsed(text: str) -> LicenseExpression:
    try:
        return _licensing().parse(text)
    except (ExpressionError, ExpressionParseError):
        return _licensing().parse("LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-"))


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@cache
def _categories() -> dict[str, str]:
    """By SPDX key."""
    return {
        entry["spdx_license_key"]: entry["category"]
        for entry in get_license_index()
        if entry.get("spdx_license_key")
    }
