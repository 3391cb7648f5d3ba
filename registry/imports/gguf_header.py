"""Read the header of a GGUF file: metadata, and type, shape and place of each tensor.

Format: the specification of GGUF in ggml's `docs/gguf.md`, versions 2 and 3, little-endian. The
header is a stranger's, so everything is bounded, and nothing behind the end of the file is named.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from registry.checkpoints.architecture import Shape
from registry.errors import InvalidCheckpoint, Problem, pointer

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_TENSORS = 100_000
MAX_FIELDS = 10_000
# Tokens, scores and merges of the largest vocabularies.
MAX_ITEMS = 4_000_000
MAX_TEXT_BYTES = 16 << 20
MAX_DIMENSIONS = 4

# Types of numbers: name, numbers in a block, bytes of a block.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
READ = f"read are {', '.join(name for name, _, _ in TYPES.values())}"
# What other programs call types that cannot be dequantized here.
OTHER_TYPES = {
    9: "Q8_1",
    15: "Q8_K",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    40: "NVFP4",
}
_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in the file: its type, its shape as in PyTorch, and its bytes from `start`."""

    type_id: int
    shape: Shape
    start: int

    @property
    def type(self) -> str:
        """Name of the type, such as `Q4_K`."""
        return TYPES[self.type_id][0]

    @property
    def num_bytes(self) -> int:
        """Size in the file in bytes."""
        _, block, size = TYPES[self.type_id]
        return math.prod(self.shape) // block * size


@dataclass(frozen=True)
class GgufHeader:
    """Metadata by key, and tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def type_id_of(name: str, *, tensor: str) -> int:
    """Return the number of a type by its name. Raises InvalidCheckpoint for an unknown one."""
    for type_id, (known, _, _) in TYPES.items():
        if known == name:
            return type_id
    problem = Problem(pointer("tensors", tensor), f"{tensor} has the type {name}; {READ}")
    raise InvalidCheckpoint("the GGUF file is refused", problems=(problem,))


def read(path: Path) -> GgufHeader:
    """Read the header of a local file.

    Raises InvalidCheckpoint with every tensor of a type that cannot be read, by the type's name,
    and for a file that is cut off or none of GGUF.
    """
    with path.open("rb") as file:
        return read_from(file, size=path.stat().st_size, name=path.name)


def read_from(file: BinaryIO, *, size: int, name: str) -> GgufHeader:
    """Read the header of a file of `size` bytes, and no byte behind it but those that are buffered.

    Raises InvalidCheckpoint as `read`, with the `name` of the file.
    """
    try:
        return _header(_Reader(file, size))
    except (struct.error, UnicodeDecodeError, EOFError) as error:
        raise _refused(f"the header of {name} is damaged or cut off: {error}") from error


class _Reader:
    """Reads values one after another, and counts items against MAX_ITEMS."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self._num_items = 0

    def number(self, form: str) -> Any:
        data = self.file.read(struct.calcsize(form))
        return struct.unpack(form, data)[0]

    def text(self) -> str:
        length = self.number("<Q")
        if length > MAX_TEXT_BYTES:
            raise EOFError(f"a text of {length} bytes")
        data = self.file.read(length)
        if len(data) < length:
            raise EOFError("the file ends inside a text")
        return data.decode()

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self.items()
        if kind not in _NUMBERS:
            raise EOFError(f"a value of the unknown kind {kind}")
        return self.number(_NUMBERS[kind])

    def items(self) -> list[Any]:
        kind, count = self.number("<I"), self.number("<Q")
        self._num_items += count
        if self._num_items > MAX_ITEMS:
            raise EOFError(f"lists of more than {MAX_ITEMS} items")
        if kind == _TEXT:
            return [self.text() for _ in range(count)]
        if kind not in _NUMBERS:
            raise EOFError(f"a list of the unknown kind {kind}")
        form = f"<{count}{_NUMBERS[kind][1]}"
        data = self.file.read(struct.calcsize(form))
        return list(struct.unpack(form, data))


def _header(reader: _Reader) -> GgufHeader:
    if reader.file.read(len(MAGIC)) != MAGIC:
        raise _refused("the file does not begin as GGUF does")
    version = reader.number("<I")
    if version not in VERSIONS:
        raise _refused(f"the file has version {version} of GGUF, expected one of {VERSIONS}")
    num_tensors, num_fields = reader.number("<Q"), reader.number("<Q")
    if num_tensors > MAX_TENSORS or num_fields > MAX_FIELDS:
        raise _refused(f"the file tells of {num_tensors} tensors and {num_fields} fields")
    metadata: dict[str, Any] = {}
    for _ in range(num_fields):
        key = reader.text()
        metadata[key] = reader.value(reader.number("<I"))
    placed = [_tensor(reader) for _ in range(num_tensors)]
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16:
        raise _refused(f"{ALIGNMENT} is {alignment!r}")
    data_start = -(-reader.file.tell() // alignment) * alignment
    if problems := tuple(_problems(placed, data_start=data_start, size=reader.size)):
        raise InvalidCheckpoint("the GGUF file is refused", problems=problems)
    tensors = {
        name: GgufTensor(type_id, shape, data_start + offset)
        for name, type_id, shape, offset in placed
    }
    return GgufHeader(metadata, tensors)


def _tensor(reader: _Reader) -> tuple[str, int, Shape, int]:
    name, num_dimensions = reader.text(), reader.number("<I")
    if num_dimensions > MAX_DIMENSIONS:
        raise EOFError(f"a tensor of {num_dimensions} dimensions")
    # The fastest dimension comes first.
    shape = tuple(reversed([reader.number("<Q") for _ in range(num_dimensions)]))
    return name, reader.number("<I"), shape, reader.number("<Q")


def _problems(
    placed: list[tuple[str, int, Shape, int]], *, data_start: int, size: int
) -> Iterator[Problem]:
    names: set[str] = set()
    for name, type_id, shape, offset in placed:
        at = pointer("tensors", name)
        if name in names:
            yield Problem(at, f"{name} is there twice")
        names.add(name)
        if type_id not in TYPES:
            called = OTHER_TYPES.get(type_id, f"number {type_id}")
            yield Problem(at, f"{name} has the type {called}; {READ}")
            continue
        kind, block, _ = TYPES[type_id]
        if not shape or shape[-1] % block:
            yield Problem(at, f"{name} {list(shape)} cannot have blocks of {block} as {kind} has")
            continue
        end = data_start + offset + GgufTensor(type_id, shape, 0).num_bytes
        if end > size:
            yield Problem(at, f"{name} ends at byte {end}, the file has {size}")


def _refused(detail: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(detail, problems=(Problem("", detail),))
