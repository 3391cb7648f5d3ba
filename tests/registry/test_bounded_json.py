"""JSON of strangers: what cannot be kept is refused with its place, in linear time and memory.

Covers: registry.texts.
"""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import bounded_json
from registry.errors import InvalidInput
from registry.texts import SURROGATES, UNFIT

TEXTS = st.text().filter(lambda text: not UNFIT.search(text))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | TEXTS
    # JSON has no infinity, and a text of it stands for one number only.
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_has_is_read(value: object) -> None:
    assert bounded_json.parse(json.dumps(value)) == value
    assert bounded_json.parse(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("raw", "at", "reason"),
    [
        (b"", "", "not JSON: expecting value at line 1, column 1"),
        (b'{"a": 1,}', "", "a comma after the last entry at line 1, column 9"),
        (b"\xef\xbb\xbf{}", "", "a byte-order mark"),
        (b"\xff", "", "not UTF-8: invalid start byte at byte 0"),
        ('"\ud83d"', "", "not UTF-8"),
        (b"[Infinity]", "", "Infinity is no number of JSON"),
        (b"[-1e999]", "", "the number -1e999 is too large"),
        (b"18446744073709551616", "", "is too large"),
        (b"9" * 5000, "", "is too large"),
        (b'{"a": 1, "a": 2}', "", "the name 'a' occurs twice"),
        (b'{"a": ["x\\u0000"]}', "/a/0", "holds a control character (U+0000), at character 2"),
        (b'{"a": {"\\ud83d": 1}}', "/a", "has a name that holds half of a surrogate pair"),
        ('["\x9b31m"]'.encode(), "/0", "a control character (U+009B)"),
        (b"[" * 65 + b"]" * 65, "", "deeper than 64 levels"),
        (b"[" * 100_000, "", "deeper than 64 levels"),
        (b'{"a":' * 90_000, "", "deeper than 64 levels"),
        (b"[" + b"[]," * 200_000 + b"0]", "", "values, at most 200000 are accepted"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(
    raw: bytes | str, at: str, reason: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        bounded_json.parse(raw)
    assert reason in error.value.detail
    assert [problem.pointer for problem in error.value.problems] == [at]


def test_brackets_and_commas_inside_texts_do_not_count() -> None:
    value = ["[{,:" * 100_000, '\\"' * 100]
    assert bounded_json.parse(json.dumps(value)) == value


def test_other_characters_can_be_let_through() -> None:
    assert bounded_json.parse(rb'"\u0000\u001b[31m"', unfit=SURROGATES) == "\0\x1b[31m"


@pytest.mark.parametrize("raw", [b"[" + b"[]," * 2**20 + b"0]", b'"' + b'\\"' * 2**20])
def test_a_refusal_needs_little_more_memory_than_the_text(raw: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            bounded_json.parse(raw)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * len(raw)
