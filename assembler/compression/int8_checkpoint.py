"""Checkpoints some of whose linear layers are int8, tensor by tensor into the store."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from assembler.compression.smoothquant import Smoothing
from assembler.network.int8_linear import quantize
from engine.compression.int8_units import LARGEST_WEIGHT, Target, with_int8
from engine.vllm_plugin import tensors
from registry import manifests
from registry.blobs import BlobStore
from registry.int8_config import WEIGHT
from registry.manifests import Manifest, TensorEntry


def write(
    manifest: Manifest,
    modules: Iterable[str],
    *,
    target: Target,
    blobs: BlobStore,
    smoothings: Sequence[Smoothing] = (),
) -> Manifest:
    """The checkpoint with these linear layers in int8, one in memory at a time; all is stored.

    Of `smoothings` those count all of whose readers become int8; what else these change is stored
    anew, in its own dtype. Raises NotFound for a lost blob, OutOfSpace.
    """
    weights = {module + WEIGHT: module for module in modules}
    own = [smoothing for smoothing in smoothings if weights.keys() >= set(smoothing.readers)]
    int8 = {}
    for name, module in weights.items():
        weight_OI = _smoothed(name, tensors.read(blobs, manifest.tensors[name]), own)
        integers, scales = quantize(weight_OI, largest=LARGEST_WEIGHT[target])
        int8[module] = (
            tensors.write(blobs, integers.to(torch.int8)),
            tensors.write(blobs, scales),
        )
    entries = dict(manifest.tensors)
    for name in {smoothing.maker for smoothing in own} - weights.keys():
        entries[name] = _rewritten(name, entries[name], own, blobs)
    compressed = with_int8(replace(manifest, tensors=entries), int8, target=target)
    manifests.store(blobs, compressed)
    return compressed


def _rewritten(
    name: str, entry: TensorEntry, smoothings: Sequence[Smoothing], blobs: BlobStore
) -> TensorEntry:
    tensor = _smoothed(name, tensors.read(blobs, entry), smoothings)
    return tensors.write(blobs, tensor, sparse=entry.num_nonzero is not None)


def _smoothed(name: str, tensor: Tensor, smoothings: Sequence[Smoothing]) -> Tensor:
    for smoothing in smoothings:
        tensor = smoothing.apply(name, tensor)
    return tensor
