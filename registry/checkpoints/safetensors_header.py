"""Read safetensors headers strictly: a header that contradicts itself or its file is refused.

The format (safetensors README, "Format"): the header length as 8 bytes, little-endian; the header
as JSON; then the bytes of the tensors, which must not have gaps or overlap.
"""

import math
import reprlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from registry import bounded_json
from registry.checkpoints.architecture import Shape
from registry.checkpoints.manifests import DTYPE_BYTES, Dtype
from registry.errors import InvalidCheckpoint, InvalidInput, Problem
from registry.texts import SURROGATES

LENGTH_BYTES = 8
# The limit of the reference implementation.
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}
# Larger shapes cannot be real, and multiplying their sizes would cost time.
MAX_DIMENSIONS = 8
MAX_COUNT = 2**63
# Names, brackets and numbers of 100,000 tensors.
MAX_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class TensorSpan:
    """Dtype, shape and bytes of a tensor: from `start` to before `end` of its file."""

    dtype: Dtype
    shape: Shape
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.end - self.start


def read_header(path: Path) -> dict[str, TensorSpan]:
    """Read the header of a local file: its tensors by name. Raises InvalidCheckpoint."""
    raw = read_raw_header(path)
    return parse_header(raw, file_size=path.stat().st_size, file=path.name)


def read_raw_header(path: Path) -> str:
    """Return the JSON text of the header of a local file. Raises InvalidCheckpoint."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(LENGTH_BYTES)
        if len(prefix) < LENGTH_BYTES:
            raise _refused(path.name, f"has {size} bytes, a header length alone needs 8")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES:
            raise _refused(path.name, _too_long(length))
        raw = file.read(length)
    if len(raw) < length:
        raise _refused(path.name, f"is cut off inside its header: {len(raw)} of {length} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _refused(path.name, f"header is not UTF-8 at byte {error.start}") from error


def parse_header(
    raw: str, *, file_size: int, file: str, pointer: str = ""
) -> dict[str, TensorSpan]:
    """Read the JSON text `raw` of a header: its tensors by name.

    `file_size` is the size of the whole file in bytes. Messages name `file`, and `pointer` is the
    place in the request. Raises InvalidCheckpoint with every problem.
    """
    header_size = len(raw.encode(errors="surrogatepass"))
    if header_size > MAX_HEADER_BYTES:
        raise _refused(file, _too_long(header_size), pointer=pointer)
    content = _json_object(raw, file, pointer)
    problems = list(_metadata_errors(content.pop(METADATA, None)))
    wrong: dict[str, list[str]] = {}
    spans: dict[str, TensorSpan] = {}
    data_start = LENGTH_BYTES + header_size
    for name, entry in content.items():
        errors = list(_entry_errors(entry))
        for error in errors:
            wrong.setdefault(error, []).append(name)
        if not errors:
            start, end = entry["data_offsets"]
            dtype = cast(Dtype, entry["dtype"])
            spans[name] = TensorSpan(
                dtype, tuple(entry["shape"]), data_start + start, data_start + end
            )
    for error, names in wrong.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        problems.append(f"tensor {names[0]!r}{more}: {error}")
    if not problems:
        # Offsets can be compared with each other only if each entry is valid.
        problems += _layout_errors(spans, data_start=data_start, file_size=file_size)
    if problems:
        raise _refused(file, *problems, pointer=pointer)
    return spans


def _json_object(raw: str, file: str, pointer: str) -> dict[str, Any]:
    try:
        content = bounded_json.parse(raw, max_elements=MAX_ELEMENTS, unfit=SURROGATES)
    except InvalidInput as error:
        raise _refused(file, f"header cannot be read: {error.detail}", pointer=pointer) from error
    if not isinstance(content, dict):
        raise _refused(file, "header must be a JSON object of tensor names", pointer=pointer)
    return content


def _metadata_errors(metadata: object) -> Iterator[str]:
    is_text = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if metadata is not None and not is_text:
        yield f"{METADATA} {reprlib.repr(metadata)} is not an object of texts"


def _entry_errors(entry: object) -> Iterator[str]:
    if not isinstance(entry, dict) or set(entry) != FIELDS:
        yield f"expected an object with exactly {sorted(FIELDS)}"
        return
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        yield f"unknown dtype {reprlib.repr(dtype)}, expected one of {sorted(DTYPE_BYTES)}"
    if not _are_counts(shape):
        yield f"shape {reprlib.repr(shape)} is not a list of at most {MAX_DIMENSIONS} counts"
    if not _are_counts(offsets) or len(offsets) != 2:
        yield f"data_offsets {reprlib.repr(offsets)} is not a pair of counts"
    elif offsets[1] < offsets[0]:
        yield f"data_offsets {offsets} are inverted"
    elif isinstance(dtype, str) and dtype in DTYPE_BYTES and _are_counts(shape):
        expected = math.prod(shape) * DTYPE_BYTES[dtype]
        if offsets[1] - offsets[0] != expected:
            yield (
                f"data_offsets span {offsets[1] - offsets[0]} bytes, "
                f"{dtype} {shape} takes {expected}"
            )


def _are_counts(value: object) -> bool:
    # `type` rather than `isinstance`: in Python `True` is an int.
    return (
        isinstance(value, list)
        and len(value) <= MAX_DIMENSIONS
        and all(type(item) is int and 0 <= item < MAX_COUNT for item in value)
    )


def _layout_errors(
    spans: dict[str, TensorSpan], *, data_start: int, file_size: int
) -> Iterator[str]:
    reached = data_start
    for name, span in sorted(spans.items(), key=lambda item: (item[1].start, item[1].end)):
        if span.start < reached:
            yield f"tensor {name!r} overlaps its predecessor by {reached - span.start} bytes"
        elif span.start > reached:
            yield f"{span.start - reached} bytes before tensor {name!r} belong to no tensor"
        if span.end > file_size:
            yield f"tensor {name!r} ends at byte {span.end}, the file has {file_size}"
        reached = max(reached, span.end)
    if reached < file_size:
        yield f"{file_size - reached} bytes at the end belong to no tensor"
    elif reached == data_start > file_size:
        yield f"is cut off inside its header: {file_size} of {data_start} bytes"


def _too_long(length: int) -> str:
    return f"header of {length} bytes, at most {MAX_HEADER_BYTES} are allowed"


def _refused(file: str, *details: str, pointer: str = "") -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"the header of {file} is refused",
        problems=tuple(Problem(pointer, f"{file}: {detail}") for detail in details),
    )
