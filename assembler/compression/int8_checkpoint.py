"""Write a checkpoint with some int8 linear layers into the store, tensor by tensor."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from assembler.compression.smoothquant import Smoothing
from assembler.network.int8_linear import quantize
from engine.compression.int8_units import LARGEST_WEIGHT, Target, with_int8
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import WEIGHT


def write(
    manifest: Manifest,
    modules: Iterable[str],
    *,
    target: Target,
    blobs: BlobStore,
    smoothings: Sequence[Smoothing] = (),
) -> Manifest:
    """Store the checkpoint with these linear layers in int8, and return its manifest.

    One layer is in memory at a time. A smoothing applies only if all of its readers become int8;
    its producer is then stored anew, in its own dtype. Raises NotFound for a lost blob, OutOfSpace.
    """
    weights = {module + WEIGHT: module for module in modules}
    applied = [smoothing for smoothing in smoothings if weights.keys() >= set(smoothing.readers)]
    int8 = {}
    for name, module in weights.items():
        weight_OI = _smooth(name, tensors.read(blobs, manifest.tensors[name]), applied)
        integers, scales = quantize(weight_OI, largest=LARGEST_WEIGHT[target])
        int8[module] = (
            tensors.write(blobs, integers.to(torch.int8)),
            tensors.write(blobs, scales),
        )
    entries = dict(manifest.tensors)
    for name in {smoothing.producer for smoothing in applied} - weights.keys():
        entries[name] = _store_smoothed(name, entries[name], applied, blobs)
    compressed = with_int8(replace(manifest, tensors=entries), int8, target=target)
    manifests.store(blobs, compressed)
    return compressed


def _store_smoothed(
    name: str, entry: TensorEntry, smoothings: Sequence[Smoothing], blobs: BlobStore
) -> TensorEntry:
    tensor = _smooth(name, tensors.read(blobs, entry), smoothings)
    return tensors.write(blobs, tensor, sparse=entry.num_nonzero is not None)


def _smooth(name: str, tensor: Tensor, smoothings: Sequence[Smoothing]) -> Tensor:
    for smoothing in smoothings:
        tensor = smoothing.apply(name, tensor)
    return tensor
