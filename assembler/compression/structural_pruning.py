"""Remove the parts of a dense network that compute zeros for every input.

In an FFN: the inner columns with an all-zero row in the gate or up projection, or an all-zero
column in the down projection. Since `silu(0)` is 0, one of the three is enough. In attention: a
whole layer, if for each group of heads the values or the outputs are all zeros. Single groups stay,
because layers with different numbers of heads would need caches of different widths. A norm is
removed with the part behind it.

The remaining network computes the same sums with fewer zeros. Mixtures are not changed: one kernel
computes all routed experts, which must be equally wide.
"""

from dataclasses import replace

import torch
from torch import Tensor

from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests, tensor_names
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.manifests import Manifest, TensorEntry

# Kernels process this many columns at a time; columns of zeros fill up to a multiple.
COLUMNS = 32


def without_zeros(manifest: Manifest, blobs: BlobStore) -> Manifest:
    """Store the checkpoint without its all-zero parts, and return the manifest.

    Return the same manifest where there is nothing to remove, and for mixtures, parallel blocks,
    int8 layers and other bases than a plain Llama, whose networks need all parts.

    Raises NotFound for a lost blob, InvalidCheckpoint for a corrupt one, OutOfSpace.
    """
    before = manifest.architecture
    if before.num_experts or before.parallel_block or int8_modules(manifest.config):
        return manifest
    if not before.is_plain_llama:
        return manifest
    layers = range(before.num_hidden_layers)
    without_attention = tuple(
        n for n in layers if not before.has_attention(n) or _attends_to_nothing(manifest, n, blobs)
    )
    if len(without_attention) == len(layers):
        # A network without any attention cannot be served: the first layer keeps its zeros.
        without_attention = without_attention[1:]
    columns = [_columns(manifest, n, blobs) for n in layers]
    sizes = tuple(len(kept) for kept in columns)
    after = replace(
        before,
        layers_without_attention=without_attention,
        ffn_sizes=() if set(sizes) == {before.intermediate_size} else sizes,
    )
    if after == before:
        return manifest
    made = replace(
        manifest,
        config=manifest.config | after.to_config(),
        tensors={
            name: _narrowed(manifest.tensors[name], name, columns, shape, blobs)
            for name, shape in after.tensor_shapes().items()
        },
    )
    manifests.store(blobs, made)
    return made


def _attends_to_nothing(manifest: Manifest, layer: int, blobs: BlobStore) -> bool:
    """Tell whether a layer's attention always returns zeros."""
    groups = manifest.architecture.num_key_value_heads
    module = tensor_names.attention(layer)
    values = tensors.read(blobs, manifest.tensors[f"{module}.v_proj.weight"])
    outputs = tensors.read(blobs, manifest.tensors[f"{module}.o_proj.weight"])
    # The heads of one group are adjacent.
    has_values = values.view(groups, -1).any(1)
    has_outputs = outputs.mT.reshape(groups, -1).any(1)
    return not bool((has_values & has_outputs).any())


def _columns(manifest: Manifest, layer: int, blobs: BlobStore) -> list[int]:
    """Return the indices of the inner columns of a layer's FFN to keep, in order."""
    a: Architecture = manifest.architecture
    if a.ffn_size(layer) == 0:
        return []
    gate_FD, up_FD, down_DF = (
        tensors.read(blobs, manifest.tensors[f"{tensor_names.ffn(layer)}.{part}.weight"])
        for part in tensor_names.FFN_PARTS
    )
    counts_F = gate_FD.any(1) & up_FD.any(1) & down_DF.any(0)
    num_kept = -(-int(counts_F.sum()) // COLUMNS) * COLUMNS
    # Non-zero columns first, then zero columns up to a multiple of COLUMNS.
    order = torch.argsort(counts_F.logical_not().int(), stable=True)
    kept: list[int] = order[:num_kept].sort().values.tolist()
    return kept


def _narrowed(
    entry: TensorEntry,
    name: str,
    columns: list[list[int]],
    shape: tuple[int, ...],
    blobs: BlobStore,
) -> TensorEntry:
    if entry.shape == shape:
        return entry
    kept = torch.tensor(columns[int(name.split(".")[2])])
    whole: Tensor = tensors.read(blobs, entry)
    axis = 1 if ".down_proj." in name else 0
    return tensors.write(blobs, whole.index_select(axis, kept), sparse=True)
