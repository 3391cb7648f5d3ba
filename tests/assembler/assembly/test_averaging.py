"""Means in pieces have the same bits as means in one, and need bounded memory."""

import threading
import tracemalloc
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from assembler.assembly import averaging
from assembler.assembly.averaging import mean
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import TensorEntry
from registry.errors import NotFound

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def store(blobs: LocalBlobs, size: Sequence[int], count: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(*size, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_it_is_the_mean_in_float32_rounded_once(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, count: int
) -> None:
    monkeypatch.setattr(averaging, "CHUNK_NUMBERS", 1000)
    made = store(blobs, (50, 70), count, dtype)
    total = torch.zeros(50, 70)
    for tensor in made:
        total += tensor
    found = mean([tensors.write(blobs, tensor) for tensor in made], blobs=blobs)
    assert found == tensors.write(blobs, (total / count).to(dtype))


def test_weights_are_relative(blobs: LocalBlobs) -> None:
    one, two = (tensors.write(blobs, torch.full((3,), value)) for value in (1.0, 5.0))
    found = mean([one, two], blobs=blobs, weights=[3, 1])
    assert found == tensors.write(blobs, torch.full((3,), 2.0))
    assert found == mean([one, two], blobs=blobs, weights=[0.75, 0.25])


def test_a_negative_weight_removes_a_part_of_a_mean(blobs: LocalBlobs) -> None:
    made = [torch.full((3,), value) for value in (1.0, 2.0, 6.0)]
    entries = [tensors.write(blobs, tensor) for tensor in made]
    all_of_them = mean(entries, blobs=blobs)
    assert mean([all_of_them, entries[2]], blobs=blobs, weights=[3, -1]) == mean(
        entries[:2], blobs=blobs
    )


def test_the_mean_of_equal_tensors_is_not_computed(blobs: LocalBlobs) -> None:
    entry = TensorEntry("BF16", (4,), "0" * 64)
    assert mean([entry, entry], blobs=blobs, weights=[2, 1]) is entry


def test_dtypes_may_differ_and_the_first_decides(blobs: LocalBlobs) -> None:
    one = tensors.write(blobs, torch.full((3,), 1.0, dtype=torch.bfloat16))
    two = tensors.write(blobs, torch.full((3,), 2.0))
    assert mean([one, two], blobs=blobs).dtype == "BF16"
    assert mean([two, one], blobs=blobs) == tensors.write(blobs, torch.full((3,), 1.5))


def test_memory_does_not_grow_with_the_tensor(blobs: LocalBlobs) -> None:
    def peak(size: int) -> int:
        made = [torch.zeros(size), torch.ones(size)]
        entries = [tensors.write(blobs, tensor) for tensor in made]
        tracemalloc.start()
        try:
            mean(entries, blobs=blobs)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = (peak(factor * averaging.CHUNK_NUMBERS) for factor in (2, 32))
    assert large < 1.1 * small


def test_a_missing_blob_is_not_found(blobs: LocalBlobs) -> None:
    entries = [TensorEntry("F32", (1,), digit * 64) for digit in "01"]
    with pytest.raises(NotFound):
        mean(entries, blobs=blobs)


def test_concurrent_means_keep_their_names(blobs: LocalBlobs) -> None:
    """The first mean waits for the second, so both must be computed at the same time."""
    entries = [tensors.write(blobs, torch.full((3,), float(value))) for value in range(4)]
    by_name = dict(zip("abcd", entries, strict=True))
    second_ended = threading.Event()

    def mean_of(name: str) -> TensorEntry:
        if name == "a":
            assert second_ended.wait(60)
        elif name == "b":
            second_ended.set()
        return mean([by_name[name]], blobs=blobs)

    assert averaging.each(list(by_name), mean_of) == by_name


def test_a_failure_of_concurrent_means_is_raised(blobs: LocalBlobs) -> None:
    missing = TensorEntry("F32", (3,), "0" * 64), TensorEntry("F32", (3,), "1" * 64)
    with pytest.raises(NotFound):
        averaging.each(["a", "b"], lambda _: mean(missing, blobs=blobs))
