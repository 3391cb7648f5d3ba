"""Numbers are cast as torch casts them, and what cannot be cast is refused with its tensor.

Covers: sources.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.blobs.blobs import CHUNK_BYTES
from registry.checkpoints.manifests import Dtype
from registry.errors import InvalidCheckpoint
from registry.ingest.casts import convert
from registry.ingest.sources import read_tensors

DTYPES: dict[Dtype, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def raw(numbers: torch.Tensor) -> bytes:
    return numbers.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(DTYPES, 2)))
def test_numbers_are_cast_as_torch_casts_them(source: Dtype, target: Dtype) -> None:
    numbers = torch.randn(4096, generator=torch.Generator().manual_seed(1)).to(DTYPES[source])
    expected = numbers.to(DTYPES[target])
    data, is_lossless = convert(raw(numbers), source, target, name="a")
    assert data == raw(expected)
    assert is_lossless == bool((expected.float() == numbers.float()).all())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    data = np.array([1.0, number], np.float32).tobytes()
    with pytest.raises(InvalidCheckpoint, match="tensor 'a' holds NaN or infinity"):
        convert(data, "F32", "BF16", name="a")


@pytest.mark.parametrize(("target", "number"), [("F16", 70_000.0), ("BF16", 3.4e38)])
def test_a_number_that_is_too_large_is_refused(target: Dtype, number: float) -> None:
    data = np.array([1.0, -number], np.float32).tobytes()
    with pytest.raises(InvalidCheckpoint, match=f"tensor 'a' holds -.* too large for {target}"):
        convert(data, "F32", target, name="a")


def test_a_tensor_is_cast_chunk_by_chunk(tmp_path: Path) -> None:
    numbers = torch.randn(3, CHUNK_BYTES // 8)
    save_file({"a": numbers, "b": torch.ones(2)}, tmp_path / "model.safetensors")
    source = read_tensors(tmp_path / "model.safetensors")["a"]
    cast = source.cast("BF16")
    chunks = list(cast.chunks())
    assert len(chunks) > 1
    assert b"".join(chunks) == raw(numbers.bfloat16())
    assert (source.num_bytes, cast.num_bytes) == (numbers.numel() * 4, numbers.numel() * 2)
    assert cast.hashed() == (cast.digest(), False)
    assert source.hashed()[1]
    assert b"".join(cast.rows(1, 3).chunks()) == raw(numbers[1:].bfloat16())
