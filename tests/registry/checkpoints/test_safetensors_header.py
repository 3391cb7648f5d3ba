"""Wrong headers are refused with the name of the tensor; valid ones are read exactly."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import find, given, settings
from hypothesis import strategies as st

from registry.checkpoints.manifests import DTYPE_BYTES
from registry.checkpoints.safetensors_header import (
    MAX_HEADER_BYTES,
    TensorSpan,
    parse_header,
    read_header,
)
from registry.errors import InvalidCheckpoint

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}
VALID = {"a": A, "b": B}


def refusal(content: object, *, size: int | None = None, data: int = 32) -> list[str]:
    """Return the problems of a header with `data` bytes behind it, or in a file of `size` bytes."""
    raw = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(InvalidCheckpoint, match=r"m\.safetensors is refused") as error:
        parse_header(
            raw, file_size=8 + len(raw) + data if size is None else size, file="m.safetensors"
        )
    return [problem.detail.removeprefix("m.safetensors: ") for problem in error.value.problems]


def test_a_valid_header_is_read() -> None:
    raw = json.dumps({"__metadata__": {"format": "pt"}} | VALID)
    spans = parse_header(raw, file_size=8 + len(raw) + 32, file="m")
    start = 8 + len(raw)
    assert spans == {
        "a": TensorSpan("F32", (2, 3), start, start + 24),
        "b": TensorSpan("BF16", (4,), start + 24, start + 32),
    }


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 4), max_size=3), max_size=5))
def test_files_written_by_the_reference_are_read(shapes: dict[str, list[int]]) -> None:
    shapes.pop("__metadata__", None)
    arrays = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    data = safetensors.numpy.save(arrays)
    length = int.from_bytes(data[:8], "little")
    spans = parse_header(data[8 : 8 + length].decode(), file_size=len(data), file="m")
    assert {name: list(span.shape) for name, span in spans.items()} == shapes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "F8"}, "unknown dtype 'F8', expected one of"),
        ({"dtype": ["F32"]}, "unknown dtype"),
        ({"shape": [2, -3]}, "is not a list of at most 8 counts"),
        ({"shape": [2, 3.0]}, "is not a list of at most 8 counts"),
        ({"shape": [True, 6]}, "is not a list of at most 8 counts"),
        ({"shape": [1] * 9}, "is not a list of at most 8 counts"),
        ({"shape": [2**63]}, "is not a list of at most 8 counts"),
        ({"shape": [2, 4]}, "span 24 bytes, F32 [2, 4] takes 32"),
        ({"data_offsets": [24, 0]}, "are inverted"),
        ({"data_offsets": [0]}, "is not a pair of counts"),
        ({"data_offsets": [-8, 16]}, "is not a pair of counts"),
        ({"data_offsets": [0, 23]}, "span 23 bytes, F32 [2, 3] takes 24"),
        ({"extra": 1}, "exactly ['data_offsets', 'dtype', 'shape']"),
    ],
)
def test_a_wrong_entry_is_refused(change: dict[str, Any], reason: str) -> None:
    (detail,) = refusal({"a": A | change, "b": B})
    assert detail.startswith("tensor 'a': ")
    assert reason in detail


def test_an_entry_that_is_no_object_is_refused() -> None:
    assert "expected an object" in refusal({"a": 3})[0]


@pytest.mark.parametrize("metadata", [["pt"], {"format": 1}, {"format": None}, "pt", False])
def test_metadata_that_is_no_text_is_refused(metadata: object) -> None:
    (detail,) = refusal({"__metadata__": metadata} | VALID)
    assert detail.startswith("__metadata__ ")
    assert "is not an object of texts" in detail


def test_all_wrong_entries_are_named() -> None:
    bad = {f"t{i}": A | {"dtype": f"X{i}"} for i in range(5)}
    assert len(refusal(bad)) == 5


def test_entries_that_are_wrong_alike_are_named_once() -> None:
    bad = {f"t{i}": A | {"dtype": "F8_E4M3"} for i in range(20)}
    (detail,) = refusal(bad)
    assert "tensor 't0' and 19 more: unknown dtype 'F8_E4M3'" in detail


def test_the_number_of_problems_is_bounded() -> None:
    bad = {f"t{i}": A | {"dtype": f"X{i}"} for i in range(1000)}
    assert len(refusal(bad)) == 50


def test_overlapping_tensors_are_refused() -> None:
    b = B | {"data_offsets": [20, 28]}
    assert refusal({"a": A, "b": b}, data=28) == ["tensor 'b' overlaps its predecessor by 4 bytes"]


def test_a_gap_between_tensors_is_refused() -> None:
    b = B | {"data_offsets": [28, 36]}
    assert refusal({"a": A, "b": b}, data=36) == ["4 bytes before tensor 'b' belong to no tensor"]


def test_bytes_behind_the_last_tensor_are_refused() -> None:
    assert refusal(VALID, data=33) == ["1 bytes at the end belong to no tensor"]


def test_a_truncated_file_is_refused() -> None:
    size = 8 + len(json.dumps(VALID)) + 31
    assert refusal(VALID, data=31) == [f"tensor 'b' ends at byte {size + 1}, the file has {size}"]


def test_a_header_longer_than_its_file_is_refused() -> None:
    assert "cut off inside its header" in refusal({}, size=9)[0]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "not JSON"),
        ("\x80\x04K\x01.", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": 1, "a": 2}', "the name 'a' occurs twice"),
        ("[" * 100_000, "deeper than 64 levels"),
        ("9" * 5000, "is too large"),
    ],
)
def test_a_header_that_is_no_json_is_refused(raw: str, reason: str) -> None:
    (detail,) = refusal(raw)
    assert reason in detail


def test_a_huge_header_is_refused() -> None:
    assert "at most 100000000 are allowed" in refusal(" " * (MAX_HEADER_BYTES + 1))[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\0\0", "has 3 bytes, a header length alone needs 8"),
        ((10**12).to_bytes(8, "little"), "header of 1000000000000 bytes"),
        ((50).to_bytes(8, "little") + b"{}", "cut off inside its header: 2 of 50 bytes"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "header is not UTF-8 at byte 0"),
        (b"\x80\x02}q\x00X\x06\x00\x00\x00", "header of"),
    ],
    ids=["short", "lying", "truncated", "binary", "pickle"],
)
def test_a_wrong_local_file_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidCheckpoint) as error:
        read_header(path)
    assert reason in error.value.problems[0].detail


SMALL = st.integers(-9, 9)
SHAPES = st.lists(st.integers(0, 4), max_size=3)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**70),
    st.floats(),
    st.sampled_from([*DTYPE_BYTES, "F8_E4M3", "f32"]),
    st.lists(st.one_of(SMALL, st.floats(), st.booleans()), max_size=4),
)


@st.composite
def valid_entries(draw: st.DrawFn) -> dict[str, Any]:
    """Draw entries of tensors without gaps, in any order of names."""
    names = draw(st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=4))
    entries = {}
    end = 0
    for name in names:
        dtype, shape = draw(st.sampled_from(sorted(DTYPE_BYTES))), draw(SHAPES)
        start, end = end, end + math.prod(shape) * DTYPE_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return {name: entries[name] for name in draw(st.permutations(names))}


def change(draw: st.DrawFn, entry: dict[str, Any]) -> Any:
    """Draw an entry that may be wrong: another type, size or place, a missing or unknown field."""
    field = draw(st.sampled_from(sorted(entry)))
    kind = draw(st.sampled_from(["value", "number", "length", "order", "less", "more", "whole"]))
    value = entry[field]
    if kind == "whole":
        return draw(VALUES)
    if kind == "more":
        return entry | {"extra": draw(VALUES)}
    if kind == "less":
        return {name: entry[name] for name in entry if name != field}
    if kind == "value" or not isinstance(value, list) or not value:
        return entry | {field: draw(VALUES)}
    if kind == "order":
        return entry | {field: value[::-1]}
    if kind == "length":
        return entry | {field: [*value, draw(SMALL)] if draw(st.booleans()) else value[1:]}
    place, by = draw(st.integers(0, len(value) - 1)), draw(st.sampled_from([-8, -4, -1, 1, 4, 8]))
    return entry | {field: [n + by * (i == place) for i, n in enumerate(value)]}


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw a safetensors file: valid, with up to three wrong entries, or of another length."""
    entries = draw(valid_entries())
    num_bytes = sum(end - start for start, end in (e["data_offsets"] for e in entries.values()))
    for _ in range(draw(st.integers(0, 3)) if entries else 0):
        name = draw(st.sampled_from(sorted(entries)))
        if isinstance(entries[name], dict) and entries[name]:
            entries[name] = change(draw, entries[name])
    if draw(st.booleans()):
        entries["__metadata__"] = draw(st.sampled_from([{}, {"a": "b"}, {"n": 1}, None, "x"]))
    header = (json.dumps(entries) + draw(st.sampled_from(["", " ", "\n\n"]))).encode()
    num_bytes += draw(st.sampled_from([0, 0, 0, -1, 1, 8]))
    body = bytes(i % 251 for i in range(max(0, num_bytes)))
    return len(header).to_bytes(8, "little") + header + body


def read_by_us(file: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    length = int.from_bytes(file[:8], "little")
    try:
        spans = parse_header(file[8 : 8 + length].decode(), file_size=len(file), file="m")
    except InvalidCheckpoint:
        return None
    return {
        name: (span.dtype, list(span.shape), file[span.start : span.end])
        for name, span in spans.items()
    }


def read_by_the_reference(file: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    try:
        # The library has no annotations for it.
        tensors = safetensors.deserialize(file)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        return None
    return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in tensors}


def is_refused_by_us_alone(file: bytes) -> bool:
    """Tell whether a file has a field, a dtype or a rank that only the reference accepts."""
    length = int.from_bytes(file[:8], "little")
    entries = json.loads(file[8 : 8 + length])
    entries.pop("__metadata__", None)
    return any(
        "extra" in entry or entry["dtype"] not in DTYPE_BYTES or len(entry["shape"]) > 8
        for entry in entries.values()
    )


@settings(max_examples=300)
@given(files())
def test_the_same_files_are_read_as_by_the_reference(file: bytes) -> None:
    expected = read_by_the_reference(file)
    if expected is not None and is_refused_by_us_alone(file):
        expected = None
    assert read_by_us(file) == expected


@pytest.mark.parametrize("is_valid", [True, False])
def test_valid_and_wrong_files_are_generated(is_valid: bool) -> None:
    find(files(), lambda file: len(file) > 100 and (read_by_us(file) is not None) is is_valid)


@given(valid_entries(), st.data())
def test_a_name_that_occurs_twice_is_refused(entries: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(entries))) if entries else "a"
    twice = f"{json.dumps(name)}: {json.dumps(entries.get(name, A))}"
    (detail,) = refusal("{" + f"{twice}, {twice}" + "}")
    assert f"the name {name!r} occurs twice" in detail
