"""Combine the licenses of several works into the license of their result (SPDX expressions).

The terms of a license come from its category in ScanCode's database, a part of
`license_expression`. They help to notice a conflict early; they are not legal advice.
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


def combine(expressions: Iterable[str]) -> str:
    """Return the license of a work made from works under `expressions`: all of them together.

    A text that is not an SPDX expression becomes a `LicenseRef-`.
    """
    distinct = sorted({str(_parse(text)) for text in expressions})
    together = " AND ".join(f"({text})" for text in distinct)
    return str(_licensing().parse(together).simplify())


def concerns(licenses: Mapping[str, str]) -> list[str]:
    """Return a sentence for each term of the licenses that binds the result.

    `licenses` maps owners to expressions. For a choice (`MIT OR GPL-3.0-only`) the alternative with
    the fewest terms counts.
    """
    owners_by_term: dict[tuple[str, str], list[str]] = {}
    for owner, text in licenses.items():
        for term in _terms(_parse(text)):
            owners_by_term.setdefault(term, []).append(owner)
    sentences = [
        f"{license}, brought by {', '.join(owners)}, {term}"
        for (license, term), owners in owners_by_term.items()
    ]
    alike = sorted({license for license, term in owners_by_term if term == SHARE_ALIKE})
    if len(alike) > 1:
        sentences.append(f"{' and '.join(alike)} each ask that the result be under them alone")
    return sentences


def _terms(expression: LicenseExpression) -> set[tuple[str, str]]:
    """Return the binding terms of an expression as (license, term)."""
    if isinstance(expression, LicenseWithExceptionSymbol):
        return {(str(expression), term) for term in _key_terms(expression.license_symbol.key)}
    if isinstance(expression, LicenseSymbol):
        return {(expression.key, term) for term in _key_terms(expression.key)}
    operands = [_terms(operand) for operand in expression.args]
    if isinstance(expression, _licensing().OR):
        return min(operands, key=len)
    return set().union(*operands)


def _key_terms(key: str) -> Iterator[str]:
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


def _parse(text: str) -> LicenseExpression:
    try:
        return _licensing().parse(text)
    except (ExpressionError, ExpressionParseError):
        return _licensing().parse("LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-"))


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@cache
def _categories() -> dict[str, str]:
    """Return the category of every license by its SPDX key."""
    return {
        entry["spdx_license_key"]: entry["category"]
        for entry in get_license_index()
        if entry.get("spdx_license_key")
    }
