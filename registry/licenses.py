"""Check licenses, and combine those of several works into the license of their result.

Licenses are SPDX expressions.

The terms of a license come from its category in ScanCode's database, a part of
`license_expression`. They help to notice a conflict early; they are not legal advice.
"""

import difflib
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

from registry.errors import InvalidInput, Problem

# What the parser raises. Some texts, such as `()`, break it.
PARSE_ERRORS = (ExpressionError, ExpressionParseError, AssertionError, IndexError)
# Terms that SPDX has no name for.
OWN_TERMS = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
EXAMPLES = "for instance Apache-2.0, MIT OR Apache-2.0, or LicenseRef-NAME for terms of your own"

FREE = ("Permissive", "Public Domain")
COPYLEFT = ("Copyleft", "Copyleft Limited")

UNKNOWN = "is no license that SPDX knows: what it allows has to be read by a person"
NON_COMMERCIAL = "forbids commercial use"
NO_DERIVATIVES = "forbids to share what is made from it"
SHARE_ALIKE = "asks that what is made from it be shared under the same license"
RESTRICTED = "restricts what the result may be used for"


def check(text: str, *, at: str) -> str:
    """Return an SPDX expression unchanged. Raises InvalidInput with the pointer `at`."""
    wrong = _what_is_wrong(text)
    if wrong is not None:
        raise InvalidInput(
            f"the license {text!r} {wrong}; take an SPDX expression, {EXAMPLES}",
            problems=(Problem(at, wrong),),
        )
    return text


def combine(expressions: Iterable[str]) -> str:
    """Return the license of a work made from works under `expressions`: all of them together.

    A text that is not an SPDX expression becomes a `LicenseRef-`: old rows may have one.
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


def _what_is_wrong(text: str) -> str | None:
    try:
        expression = _licensing().parse(text)
        is_empty = expression is None
        symbols = [] if is_empty else _licensing().license_symbols(expression, decompose=False)
    except PARSE_ERRORS:
        return "cannot be read"
    if is_empty:
        return "is empty"
    for symbol in symbols:
        if isinstance(symbol, LicenseWithExceptionSymbol):
            if not symbol.exception_symbol.is_exception:
                return f"has {symbol.exception_symbol.key!r} as an exception, which SPDX lacks"
            symbol = symbol.license_symbol
        if symbol.is_exception:
            return f"has {symbol.key!r} without a license that it is an exception to"
        if symbol.key not in _licensing().known_symbols and not OWN_TERMS.fullmatch(symbol.key):
            near = difflib.get_close_matches(symbol.key, _licensing().known_symbols, n=1)
            meant = f" (is it {near[0]}?)" if near else ""
            return f"has {symbol.key!r}, which SPDX does not know{meant}"
    return None


def _parse(text: str) -> LicenseExpression:
    try:
        expression = _licensing().parse(text)
    except PARSE_ERRORS:
        expression = None
    if expression is None:
        own = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
        return _licensing().parse(f"LicenseRef-{own}")
    return expression


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
