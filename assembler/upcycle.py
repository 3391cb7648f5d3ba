"""Dense checkpoints into one: the mixture of Nexus, and the plain mean it is compared with.

What stays as it is becomes a reference to a blob that is already stored; only means and router
rows are computed and written, one tensor at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from assembler.recipe import Recipe
from engine import tensors
from registry.architecture import is_ffn
from registry.blobs import BlobStore
from registry.errors import Incompatible
from registry.manifests import Manifest, TensorEntry


def assemble(
    recipe: Recipe,
    *,
    seed: Manifest,
    experts: Sequence[Manifest],
    projection: Manifest,
    rows: Sequence[Tensor],
    domain_embeddings: Tensor,
    blobs: BlobStore,
) -> Manifest:
    """A mixture whose routed experts are the experts' FFNs and whose shared one is the seed's.

    `rows` (one [N, D] per block) and `domain_embeddings` [N, M] come from the family projection;
    the order of all is that of `recipe.experts`. What is not an FFN is the mean of the experts'
    (Nexus, arXiv 2408.15901, section 3). Raises Incompatible when an expert has other tensors than
    the seed.
    """
    _check_same_tensors(seed, experts)
    dense = seed.architecture
    mix = replace(
        dense,
        num_experts=len(experts),
        num_experts_per_tok=recipe.experts_per_token,
        expert_names=tuple(pinned.partition("@")[0] for pinned in recipe.experts),
        combine=recipe.combine,
        router=recipe.router,
        attention=recipe.attention,
        domain_embedding_size=domain_embeddings.shape[1],
    )
    entries = _averaged(seed, experts, blobs) | _ffns(seed, experts)
    entries |= {name: e for name, e in projection.tensors.items() if ".gate.projection." in name}
    entries["model.domain_embeddings"] = tensors.write(blobs, domain_embeddings.float())
    dtype = tensors.TORCH_DTYPES[seed.tensors["model.norm.weight"].dtype]
    for layer, rows_ND in enumerate(rows):
        name = f"model.layers.{layer}.mlp.gate.weight"
        entries[name] = tensors.write(blobs, rows_ND.to(dtype))
    return Manifest(
        config=seed.config | mix.to_config(),
        files=seed.files,
        tensors={name: entries[name] for name in mix.tensor_shapes()},
    )


def merge(manifests: Sequence[Manifest], blobs: BlobStore) -> Manifest:
    """The uniform mean of dense checkpoints, seed first: what a mixture must beat.

    The paper's Dense Merging includes the seed in the mean (Nexus, section 4).
    """
    first, *others = manifests
    _check_same_tensors(first, others)
    means = {name: _mean([m.tensors[name] for m in manifests], blobs) for name in first.tensors}
    return replace(first, tensors=means)


def _averaged(
    seed: Manifest, experts: Sequence[Manifest], blobs: BlobStore
) -> dict[str, TensorEntry]:
    names = [name for name in seed.tensors if not is_ffn(name)]
    return {name: _mean([e.tensors[name] for e in experts], blobs) for name in names}


def _ffns(seed: Manifest, experts: Sequence[Manifest]) -> dict[str, TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    for name, entry in seed.tensors.items():
        if not is_ffn(name):
            continue
        entries[name.replace(".mlp.", ".mlp.shared_expert.")] = entry
        for number, expert in enumerate(experts):
            entries[name.replace(".mlp.", f".mlp.experts.{number}.")] = expert.tensors[name]
    return entries


def _mean(entries: Sequence[TensorEntry], blobs: BlobStore) -> TensorEntry:
    """The mean in float32, rounded to the first one's dtype; one of equals is their mean."""
    first = entries[0]
    if all(entry.digest == first.digest for entry in entries):
        return first
    total = torch.zeros(first.shape)
    for entry in entries:
        total += tensors.read(blobs, entry)
    return tensors.write(blobs, (total / len(entries)).to(tensors.TORCH_DTYPES[first.dtype]))


def _check_same_tensors(seed: Manifest, experts: Iterable[Manifest]) -> None:
    expected = seed.architecture.tensor_shapes()
    for expert in experts:
        shapes = {name: entry.shape for name, entry in expert.tensors.items()}
        if shapes != expected:
            names = sorted(n for n in shapes | expected if shapes.get(n) != expected.get(n))
            raise Incompatible(f"an expert differs from its seed in the shape of {names[0]}")
