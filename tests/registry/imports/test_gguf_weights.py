"""Dequantized weights equal those that transformers reads from the same file."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import TensorEntry
from registry.imports import gguf_checkpoints, gguf_header, gguf_weights
from tests import tiny, tiny_gguf

Q8_0, F16 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F16


def imported(path: Path, blobs: LocalBlobs) -> dict[str, TensorEntry]:
    seed = tiny.store_manifest(blobs)
    planned = gguf_checkpoints.plan(gguf_header.read(path), seed)
    return gguf_weights.store(planned, path, seed, blobs, on_tensor=lambda *_: None)


def test_a_file_in_bfloat16_gives_the_checkpoint_back(tmp_path: Path, blobs: LocalBlobs) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    assert imported(path, blobs) == tiny.store_manifest(blobs, expert=1).tensors


def test_a_quantized_file_is_near_its_checkpoint(tmp_path: Path, blobs: LocalBlobs) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", quantization=Q8_0)
    whole = tiny.store_manifest(blobs, expert=1).tensors
    for name, entry in imported(path, blobs).items():
        expected = numpy_tensors.read(blobs, whole[name])
        values = numpy_tensors.read(blobs, entry)
        np.testing.assert_allclose(values, expected, atol=np.abs(expected).max() / 100)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [Q8_0, F16], ids=lambda kind: kind.name)
def test_weights_equal_those_of_transformers(
    tmp_path: Path, blobs: LocalBlobs, quantization: gguf.GGMLQuantizationType
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = tiny_gguf.write(tmp_path / "tiny.gguf", quantization=quantization)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    theirs = model.state_dict()
    for name, entry in imported(path, blobs).items():
        rounded = theirs[name].to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(numpy_tensors.read(blobs, entry), rounded, err_msg=name)
