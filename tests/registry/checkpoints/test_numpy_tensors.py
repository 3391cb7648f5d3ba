"""NumPy reads and writes float tensors as torch does."""

import numpy as np
import pytest
import torch

from engine.vllm_plugin import tensors
from registry.blobs.blobs import CHUNK_BYTES, LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Dtype, TensorEntry
from registry.errors import NotFound


@pytest.mark.parametrize("dtype", numpy_tensors.RAW_DTYPES)
def test_tensors_written_by_torch_are_read(blobs: LocalBlobs, dtype: Dtype) -> None:
    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    tensor = tensor.to(tensors.TORCH_DTYPES[dtype])
    read = numpy_tensors.read(blobs, tensors.write(blobs, tensor))
    assert np.array_equal(read, tensor.float().numpy())


@pytest.mark.parametrize("dtype", numpy_tensors.RAW_DTYPES)
def test_numbers_are_rounded_as_by_torch(blobs: LocalBlobs, dtype: Dtype) -> None:
    # Bit patterns of finite numbers near 1 and near the limits; some are ties.
    bits = np.random.default_rng(0).integers(0, 0x7F7FFFFF, 100_000, np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    values = np.concatenate([bits, ties, [0, 0x80000000]]).astype(np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        entry = numpy_tensors.write(blobs, values, dtype=dtype)
    expected = torch.from_numpy(values).to(tensors.TORCH_DTYPES[dtype])
    assert entry == tensors.write(blobs, expected)


def test_a_transposed_view_is_written_in_its_order(blobs: LocalBlobs) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    entry = numpy_tensors.write(blobs, values, dtype="BF16")
    assert entry.shape == (3, 2)
    assert np.array_equal(numpy_tensors.read(blobs, entry), values)


def test_a_tensor_larger_than_a_chunk_is_written(blobs: LocalBlobs) -> None:
    values = np.ones(CHUNK_BYTES // 4 + 3, np.float32)
    assert np.array_equal(
        numpy_tensors.read(blobs, numpy_tensors.write(blobs, values, dtype="F32")), values
    )


def test_a_missing_blob_is_not_found(blobs: LocalBlobs) -> None:
    with pytest.raises(NotFound):
        numpy_tensors.read(blobs, TensorEntry("F32", (1,), "0" * 64))


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("first_row", [0, 300])
def test_a_product_reads_a_matrix_in_pieces(
    blobs: LocalBlobs, dtype: Dtype, first_row: int
) -> None:
    random = np.random.default_rng(0)
    matrix = numpy_tensors.write(blobs, random.standard_normal((600, 7), np.float32), dtype=dtype)
    x = random.standard_normal((2, 3, 7), np.float32)
    expected = x @ numpy_tensors.read(blobs, matrix)[first_row:].T
    product = numpy_tensors.product(x, blobs, matrix, first_row=first_row)
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-5)


def test_some_rows_are_read(blobs: LocalBlobs) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    entry = numpy_tensors.write(blobs, values, dtype="BF16")
    assert np.array_equal(numpy_tensors.read_rows(blobs, entry, slice(1, 3)), values[1:3])
    assert np.array_equal(numpy_tensors.read_rows(blobs, entry, slice(3, 9)), values[3:])
