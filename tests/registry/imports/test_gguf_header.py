"""Headers of GGUF files that the reference library writes are read; damaged ones are refused."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from registry.errors import InvalidCheckpoint
from registry.imports import gguf_header
from tests import tiny_gguf


def test_every_type_has_the_size_of_the_reference_library() -> None:
    for type_id, (name, block, size) in gguf_header.TYPES.items():
        kind = gguf.GGMLQuantizationType(type_id)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (block, size))
    for type_id, name in gguf_header.OTHER_TYPES.items():
        assert gguf.GGMLQuantizationType(type_id).name == name


def test_a_header_is_read_as_the_reference_library_reads_it(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    header = gguf_header.read(path)
    theirs = gguf.GGUFReader(path)
    assert header.metadata["llama.attention.head_count"] == 4
    assert header.metadata["tokenizer.ggml.tokens"] == tiny_gguf.tokens()
    kinds = theirs.fields["tokenizer.ggml.token_type"].contents()
    assert header.metadata["tokenizer.ggml.token_type"] == kinds
    assert len(header.tensors) == len(theirs.tensors)
    for tensor in theirs.tensors:
        ours = header.tensors[tensor.name]
        assert ours.type == tensor.tensor_type.name
        assert ours.shape == tuple(int(n) for n in reversed(tensor.shape))
        assert (ours.start, ours.num_bytes) == (tensor.data_offset, tensor.n_bytes)


def test_a_type_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 4), np.int32))
    tiny_gguf.finish(writer)
    with pytest.raises(InvalidCheckpoint) as caught:
        gguf_header.read(tmp_path / "other.gguf")
    assert "has the type I32; read are F32, F16, Q4_0" in caught.value.problems[0].detail


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"GGML....", "does not begin as GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tells of"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**50), "a text of"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 5) + b"abc", "inside a text"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2**40),
            "lists of more than",
        ),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2), "cut off"),
        (b"GGUF\x03\0", "cut off"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(InvalidCheckpoint, match=sentence):
        gguf_header.read(path)


def test_a_file_without_its_end_is_refused(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidCheckpoint) as caught:
        gguf_header.read(path)
    assert "ends at byte" in caught.value.problems[0].detail
