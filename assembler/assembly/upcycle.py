"""Assemble dense checkpoints: into a mixture of experts, or into their plain mean.

Unchanged tensors become references to stored blobs. Only means and router rows are computed and
written, one tensor at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from assembler.assembly import regression
from assembler.assembly.averaging import each, mean
from assembler.assembly.regression import Member
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
    experts: Sequence[Member],
    routers: Routers,
    blobs: BlobStore,
) -> Manifest:
    """Assemble a mixture: the experts' FFNs are routed, and the seed's FFN is shared.

    All other tensors are averages over the routed checkpoints: without the seed in Nexus (arXiv
    2408.15901, section 3), with the seed in BTX and BAM, where it is routed too. They are means,
    but where all members have moments of what a tensor reads, see `regression`. Attention becomes
    experts if the recipe says so (BAM, arXiv 2408.08274, section 3.2). Raises Incompatible if the
    tensors of an expert differ from the seed's in name or shape.
    """
    check_same_tensors(seed, [expert.checkpoint for expert in experts])
    members = experts if recipe.shared_expert else [*experts, Member(checkpoint=seed)]
    averaged = [name for name in seed.tensors if not is_expert(name, mix)]
    entries = averages(averaged, members, seed=seed, blobs=blobs)
    for name in seed.tensors:
        if is_expert(name, mix):
            for number, member in enumerate(members):
                entries[as_routed_expert(name, number)] = member.checkpoint.tensors[name]
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
    members = [Member(checkpoint=manifest) for manifest in manifests]
    tensors = averages(list(first.tensors), members, seed=first, blobs=blobs)
    return replace(first, tensors=tensors, notes=Notes())


def averages(
    names: Sequence[str], members: Sequence[Member], *, seed: Manifest, blobs: BlobStore
) -> dict[str, TensorEntry]:
    """Return the average of each of these tensors over the members."""

    def of_name(name: str) -> TensorEntry:
        entries = [member.checkpoint.tensors[name] for member in members]
        if len({entry.digest for entry in entries}) == 1:
            return entries[0]
        average = regression.of_inputs(name, members)
        if average is None:
            return mean(entries, blobs=blobs)
        start = seed.tensors[name]
        return regression.moved(start, seed=start, before=None, after=average, blobs=blobs)

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
