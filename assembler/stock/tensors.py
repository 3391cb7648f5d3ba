"""The tensors of a checkpoint as other programs name and compute them, equal in every output.

Letters: D hidden, F FFN inner, N routed experts, H heads, C head width. With top-k probabilities
`p`, the layouts compute `sigmoid(g x) shared(x) + sum_k p_k expert_k(x)`.

- `g` is so near to 0 that the sigmoid is 1/2 in every dtype, and the shared expert's down
  projection is doubled. It is not 0, since llama.cpp divides by `g x`.
- For `convex`, `(1 - sum_k p_k) shared(x) + sum_k p_k expert_k(x)`, every routed expert is
  `expert_k(x) - shared(x)`: twice as wide, with the shared expert as its second half and that
  half's down projection negated.

Signs and factors of two are exact in every float dtype. Norms of Qwen3-Next multiply by one more
than their weight: they are written in float32, where the difference is exact for all weights but
those nearer to 0 than 2^-15.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from assembler.stock.layout import EMPTY_WIDTH, QWEN3_NEXT, class_name, enabled_experts
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors, tensor_names
from registry.checkpoints.architecture import Shape
from registry.checkpoints.manifests import Dtype, Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats

# All weights of `g`. Times 2^13 inputs of size 2^7 it gives 2^-40, and below 2^-24 the sigmoid is
# 1/2 in float32. In float16 it would be 0.
ALMOST_ZERO = 2.0**-60

Compute = Callable[[BlobStore], Floats]


@dataclass(frozen=True)
class StockTensor:
    """A tensor to write: a stored one, or one that is computed when it is written.

    The entry of a computed tensor has no digest.
    """

    entry: TensorEntry
    compute: Compute | None = None


def rewritten(manifest: Manifest) -> dict[str, StockTensor]:
    """Return the tensors of a checkpoint that `layout.check` accepts, by name, layer by layer."""
    names = manifest.architecture.tensor_shapes()
    if not manifest.architecture.num_experts:
        return {name: StockTensor(manifest.tensors[name]) for name in names}
    tensors = dict(_of_mix(manifest, names))
    head = tensor_names.LM_HEAD + tensor_names.WEIGHT
    return {**tensors, head: tensors.get(head, tensors[tensor_names.EMBEDDINGS])}


def _of_mix(manifest: Manifest, names: Mapping[str, Shape]) -> Iterator[tuple[str, StockTensor]]:
    a, entries = manifest.architecture, manifest.tensors
    numbers = {old: new for new, old in enumerate(enabled_experts(a))}
    for name in names:
        entry = entries[name]
        if not tensor_names.is_computed_with(name):
            continue
        if tensor_names.is_routed_expert(name):
            number = tensor_names.expert_number(name)
            if number in numbers:
                new = name.replace(f".experts.{number}.", f".experts.{numbers[number]}.")
                yield new, _routed(name, number, manifest)
        elif tensor_names.is_shared_expert(name):
            is_down = name.endswith("down_proj.weight")
            yield name, _scaled(entry, 2) if is_down else StockTensor(entry)
        elif tensor_names.is_router_rows(name):
            yield name, _rows(entry, list(numbers))
            yield from _beside_router(name, manifest)
        elif class_name(manifest) == QWEN3_NEXT:
            yield name, _of_qwen3_next(name, manifest)
        else:
            yield name, StockTensor(entry)
            yield from _beside_attention(name, manifest)


def _routed(name: str, number: int, manifest: Manifest) -> StockTensor:
    """Return a weight of a routed expert: of twice the width where the mix is convex."""
    entry = manifest.tensors[name]
    if manifest.architecture.combine != "convex":
        return StockTensor(entry)
    shared = manifest.tensors[name.replace(f".experts.{number}.", ".shared_expert.")]
    dtype: Dtype = entry.dtype if entry.dtype == shared.dtype else "F32"
    if name.endswith("down_proj.weight"):
        shape: Shape = (entry.shape[0], entry.shape[1] + shared.shape[1])
        halves = [(entry, 1), (shared, -1)]
        return _computed(dtype, shape, partial(_joined, halves=halves, axis=1))
    shape = (entry.shape[0] + shared.shape[0], entry.shape[1])
    halves = [(entry, 1), (shared, 1)]
    return _computed(dtype, shape, partial(_joined, halves=halves, axis=0))


def _beside_router(name: str, manifest: Manifest) -> Iterator[tuple[str, StockTensor]]:
    """Yield the shared expert's gate, and a shared expert of zeros where the mix has none."""
    a, dtype = manifest.architecture, manifest.tensors[name].dtype
    module = name.removesuffix(".gate.weight")
    gate = partial(_filled, shape=(1, a.hidden_size), value=ALMOST_ZERO)
    wide: Dtype = "F32" if dtype == "F16" else dtype
    yield f"{module}.shared_expert_gate.weight", _computed(wide, (1, a.hidden_size), gate)
    if not a.shared_expert:
        inner, outer = (EMPTY_WIDTH, a.hidden_size), (a.hidden_size, EMPTY_WIDTH)
        for part in tensor_names.FFN_PARTS:
            shape = outer if part == "down_proj" else inner
            yield f"{module}.shared_expert.{part}.weight", _zeros(dtype, shape)


def _beside_attention(name: str, manifest: Manifest) -> Iterator[tuple[str, StockTensor]]:
    """Yield the bias of zeros that Qwen2-MoE needs beside a query, key or value weight."""
    parts = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
    bias = name.removesuffix("weight") + "bias"
    if name.endswith(parts) and bias not in manifest.tensors:
        entry = manifest.tensors[name]
        yield bias, _zeros(entry.dtype, entry.shape[:1])


def _of_qwen3_next(name: str, manifest: Manifest) -> StockTensor:
    """Return a tensor outside FFNs.

    Attention has a gate for each output, `sigmoid(g x)`: `g` is 0, and the output projection is
    doubled. The rows of queries and of gates alternate, head by head.
    """
    entry, a = manifest.tensors[name], manifest.architecture
    if name.endswith("norm.weight"):
        return _computed("F32", entry.shape, partial(_less_one, entry=entry))
    if name.endswith("q_proj.weight"):
        shape = (2 * entry.shape[0], entry.shape[1])
        compute = partial(_with_gates, entry=entry, num_heads=a.num_attention_heads)
        return _computed(entry.dtype, shape, compute)
    return _scaled(entry, 2) if name.endswith("o_proj.weight") else StockTensor(entry)


def _rows(entry: TensorEntry, kept: list[int]) -> StockTensor:
    if len(kept) == entry.shape[0]:
        return StockTensor(entry)
    shape = (len(kept), entry.shape[1])
    return _computed(entry.dtype, shape, lambda blobs: numpy_tensors.read(blobs, entry)[kept])


def _scaled(entry: TensorEntry, factor: int) -> StockTensor:
    compute = partial(_joined, halves=[(entry, factor)], axis=0)
    return _computed(entry.dtype, entry.shape, compute)


def _zeros(dtype: Dtype, shape: Shape) -> StockTensor:
    return _computed(dtype, shape, partial(_filled, shape=shape, value=0))


def _computed(dtype: Dtype, shape: Shape, compute: Compute) -> StockTensor:
    return StockTensor(TensorEntry(dtype, shape, digest=""), compute)


def _filled(_: BlobStore, *, shape: Shape, value: float) -> Floats:
    return np.full(shape, value, np.float32)


def _joined(blobs: BlobStore, *, halves: list[tuple[TensorEntry, int]], axis: int) -> Floats:
    """Return the tensors, each times its factor, one behind the other along an axis."""
    parts = []
    for entry, factor in halves:
        part = numpy_tensors.read(blobs, entry)
        part *= factor
        parts.append(part)
    return np.concatenate(parts, axis)


def _less_one(blobs: BlobStore, *, entry: TensorEntry) -> Floats:
    return numpy_tensors.read(blobs, entry) - np.float32(1)


def _with_gates(blobs: BlobStore, *, entry: TensorEntry, num_heads: int) -> Floats:
    """Return rows of queries [H C, D] with rows of zeros behind those of each head."""
    queries = numpy_tensors.read(blobs, entry).reshape(num_heads, -1, entry.shape[1])
    pairs = np.concatenate([queries, np.zeros_like(queries)], 1)
    return pairs.reshape(-1, entry.shape[1])
