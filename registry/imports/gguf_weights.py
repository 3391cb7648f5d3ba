"""Dequantize the tensors of a GGUF file, in the order of rows that transformers reads."""

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np

from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.imports import gguf_names
from registry.imports.gguf_header import GgufTensor

# Called with the name of a tensor, its number from 1, and the number of all.
OnTensor = Callable[[str, int, int], None]


def store(
    planned: Mapping[str, GgufTensor],
    path: Path,
    seed: Manifest,
    blobs: BlobStore,
    *,
    on_tensor: OnTensor,
) -> dict[str, TensorEntry]:
    """Store all tensors in the seed's dtypes and return them by name. Raises OutOfSpace."""
    tensors = {}
    architecture = seed.architecture
    for number, (name, tensor) in enumerate(planned.items(), start=1):
        on_tensor(name, number, len(planned))
        values = read_as(name, path, tensor, architecture)
        tensors[name] = numpy_tensors.write(blobs, values, dtype=seed.tensors[name].dtype)
    return tensors


def read_as(name: str, path: Path, tensor: GgufTensor, architecture: Architecture) -> Floats:
    """Return the tensor that transformers calls `name` as it stores it, in float32."""
    heads = architecture.num_attention_heads, architecture.num_key_value_heads
    layout = gguf_names.of_base(architecture.base_model_type)
    values = read(path, tensor)
    return gguf_names.as_transformers(values, name, layout, num_heads=heads["k_proj" in name])


def read(path: Path, tensor: GgufTensor) -> Floats:
    """Return a tensor of the file as float32."""
    raw = np.fromfile(path, np.uint8, count=tensor.num_bytes, offset=tensor.start)
    blocks = raw.reshape(*tensor.shape[:-1], -1)
    values = gguf.dequantize(blocks, gguf.GGMLQuantizationType(tensor.type_id))
    return np.ascontiguousarray(values, np.float32).reshape(tensor.shape)
