"""Assemble dense checkpoints: into a mixture of experts, or into their plain mean.

Unchanged tensors become references to stored blobs. Only means and router rows are computed and
written, one tensor at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from assembler.assembly.averaging import each, mean
from assembler.recipes.recipe import Recipe
from assembler.routing.router_init import Routers
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, Notes, TensorEntry
from registry.checkpoints.tensor_names import (
    DOMAIN_EMBEDDINGS,
    FINAL_NORM,
    as_routed_expert,
    as_shared_expert,
    is_attention,
    is_ffn,
    is_key_value,
)
from registry.errors import Incompatible


def upcycle(
    recipe: Recipe,
    mix: Architecture,
    *,
    seed: Manifest,
    experts: Sequence[Manifest],
    routers: Routers,
    blobs: BlobStore,
) -> Manifest:
    """Assemble a mixture: the experts' FFNs are routed, and the seed's FFN is shared.

    All other tensors are the mean over the routed checkpoints: without the seed in Nexus (arXiv
    2408.15901, section 3), with the seed in BTX and BAM, where it is routed too. Attention becomes
    experts if the recipe says so (BAM, arXiv 2408.08274, section 3.2). Raises Incompatible if the
    tensors of an expert differ from the seed's in name or shape.
    """
    check_same_tensors(seed, experts)
    members = experts if recipe.shared_expert else [*experts, seed]
    averaged = [name for name in seed.tensors if not is_expert(name, mix)]
    entries = means(averaged, members, blobs)
    for name in seed.tensors:
        if is_expert(name, mix):
            for number, member in enumerate(members):
                entries[as_routed_expert(name, number)] = member.tensors[name]
        if is_ffn(name) and recipe.shared_expert:
            entries[as_shared_expert(name)] = seed.tensors[name]
    return finished(seed, mix, entries=entries, routers=routers, blobs=blobs)


def merge(manifests: Sequence[Manifest], blobs: BlobStore) -> Manifest:
    """Return the uniform mean of dense checkpoints, seed first: the baseline of a mixture.

    It is the Dense Merging of Nexus (section 4), which includes the seed.
    """
    first, *others = manifests
    check_same_tensors(first, others)
    # Notes are of the seed's own weights.
    tensors = means(list(first.tensors), manifests, blobs)
    return replace(first, tensors=tensors, notes=Notes())


def means(
    names: Sequence[str], members: Sequence[Manifest], blobs: BlobStore
) -> dict[str, TensorEntry]:
    """Return the mean of each of these tensors over the members."""

    def of_name(name: str) -> TensorEntry:
        return mean([member.tensors[name] for member in members], blobs=blobs)

    return each(names, of_name)


def finished(
    seed: Manifest,
    mix: Architecture,
    *,
    entries: dict[str, TensorEntry],
    routers: Routers,
    blobs: BlobStore,
) -> Manifest:
    """Write the routers, and return the manifest of a mix with these entries."""
    dtype = seed.tensors[FINAL_NORM].dtype
    entries |= routers.shared
    for name, rows in routers.rows.items():
        entries[name] = numpy_tensors.write(blobs, rows, dtype=dtype)
    if routers.domain_embeddings is not None:
        embeddings = numpy_tensors.write(blobs, routers.domain_embeddings, dtype="F32")
        entries[DOMAIN_EMBEDDINGS] = embeddings
    return Manifest(
        config=seed.config | mix.to_config(),
        files=seed.files,
        tensors={name: entries[name] for name in mix.tensor_shapes()},
    )


def is_expert(name: str, mix: Architecture) -> bool:
    """Tell whether a tensor of a dense checkpoint becomes part of an expert in `mix`."""
    if mix.attention == "average":
        return is_ffn(name)
    shared = mix.attention == "experts-shared-kv" and is_key_value(name)
    return is_ffn(name) or (is_attention(name) and not shared)


def check_same_tensors(seed: Manifest, experts: Iterable[Manifest]) -> None:
    """Raise Incompatible if the tensors of an expert differ from the seed's in name or shape."""
    expected = seed.architecture.tensor_shapes()
    for expert in experts:
        shapes = {name: entry.shape for name, entry in expert.tensors.items()}
        if shapes != expected:
            names = sorted(n for n in shapes | expected if shapes.get(n) != expected.get(n))
            raise Incompatible(f"an expert differs from its seed in the shape of {names[0]}")
