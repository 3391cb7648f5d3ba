"""Read tensors from the blob store, memory-mapped, and write them to it, named by their hash.

A local blob is mapped, not copied. Ten networks in one process, or a server and a trainer on one
host, so share the pages of the experts that they have in common.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from registry.blobs.blobs import CHUNK_BYTES, BlobStore
from registry.checkpoints import sparse_tensors
from registry.checkpoints.manifests import Dtype, Manifest, TensorEntry

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES: dict[torch.dtype, Dtype] = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def read(blobs: BlobStore, entry: TensorEntry) -> Tensor:
    """Return the tensor of an entry on the CPU; a sparse one is expanded, any other is mapped.

    The mapping is private (copy on write): what is written to the tensor never reaches the blob.
    Raises NotFound when the blob is missing, and InvalidCheckpoint when a sparse blob does not
    match its entry.
    """
    if entry.num_nonzero is not None:
        bits = sparse_tensors.read(blobs, entry).view(np.uint8)
        return torch.from_numpy(bits).view(TORCH_DTYPES[entry.dtype]).view(entry.shape)
    tensor = torch.from_file(
        str(blobs.local_path(entry.digest)),
        shared=False,
        size=entry.num_bytes,
        dtype=torch.uint8,
    )
    return tensor.view(TORCH_DTYPES[entry.dtype]).view(entry.shape)


def write(blobs: BlobStore, tensor: Tensor, *, sparse: bool = False) -> TensorEntry:
    """Store a tensor under the digest of its bytes and return its entry.

    With `sparse` it is stored in the sparse format when its zeros make that smaller. Raises
    OutOfSpace.
    """
    dtype = DTYPE_NAMES[tensor.dtype]
    if sparse:
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        bits = raw.view(sparse_tensors.unsigned(dtype)).reshape(tensor.shape)
        if (entry := sparse_tensors.write(blobs, bits, dtype=dtype)) is not None:
            return entry
    digest = blobs.put(_chunks(tensor))
    return TensorEntry(dtype, tuple(tensor.shape), digest)


def load(
    blobs: BlobStore, manifest: Manifest, names: Iterable[str] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield `(name, tensor)` for all tensors of a checkpoint, or only for those in `names`."""
    for name in manifest.tensors if names is None else names:
        yield name, read(blobs, manifest.tensors[name])


def _chunks(tensor: Tensor) -> Iterator[bytes]:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    for chunk in torch.split(raw, CHUNK_BYTES):
        yield chunk.numpy().tobytes()
