"""Dense checkpoints into one: a mixture of experts, and the plain mean it is compared with.

What stays as it is becomes a reference to a blob that is already stored; only means and router
rows are computed and written, one tensor at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from assembler.assembly.averaging import each, mean
from assembler.recipes.recipe import Recipe
from assembler.routing.router_init import Routers
from registry import numpy_tensors
from registry.architecture import Architecture, is_attention, is_ffn, is_key_value
from registry.blobs import BlobStore
from registry.errors import Incompatible
from registry.manifests import Manifest, TensorEntry


def upcycle(
    recipe: Recipe,
    mix: Architecture,
    *,
    seed: Manifest,
    experts: Sequence[Manifest],
    routers: Routers,
    blobs: BlobStore,
) -> Manifest:
    """A mixture whose routed experts are the experts' FFNs, and the seed's FFN beside them.

    What is no expert is the mean over the routed ones: without the seed in Nexus (arXiv 2408.15901,
    section 3), with it in BTX and BAM, where it is one of them. Attention becomes experts where the
    recipe says so (BAM, arXiv 2408.08274, section 3.2). Raises Incompatible when an expert has
    other tensors than the seed.
    """
    check_same_tensors(seed, experts)
    members = experts if recipe.shared_expert else [*experts, seed]
    averaged = [name for name in seed.tensors if not is_expert(name, mix)]
    entries = means(averaged, members, blobs)
    for name in seed.tensors:
        if is_expert(name, mix):
            for number, member in enumerate(members):
                entries[expert_name(name, number)] = member.tensors[name]
        if is_ffn(name) and recipe.shared_expert:
            entries[name.replace(".mlp.", ".mlp.shared_expert.")] = seed.tensors[name]
    return finished(seed, mix, entries=entries, routers=routers, blobs=blobs)


def merge(manifests: Sequence[Manifest], blobs: BlobStore) -> Manifest:
    """The uniform mean of dense checkpoints, seed first: what a mixture must beat.

    The paper's Dense Merging includes the seed in the mean (Nexus, section 4).
    """
    first, *others = manifests
    check_same_tensors(first, others)
    return replace(first, tensors=means(list(first.tensors), manifests, blobs))


def means(
    names: Sequence[str], members: Sequence[Manifest], blobs: BlobStore
) -> dict[str, TensorEntry]:
    """The mean of each of these tensors over the members."""

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
    """The manifest of a mix that has `entries`, once its routers are written beside them."""
    dtype = seed.tensors["model.norm.weight"].dtype
    entries |= routers.shared
    for name, rows in routers.rows.items():
        entries[name] = numpy_tensors.write(blobs, rows, dtype=dtype)
    if routers.domain_embeddings is not None:
        embeddings = numpy_tensors.write(blobs, routers.domain_embeddings, dtype="F32")
        entries["model.domain_embeddings"] = embeddings
    return Manifest(
        config=seed.config | mix.to_config(),
        files=seed.files,
        tensors={name: entries[name] for name in mix.tensor_shapes()},
    )


def is_expert(name: str, mix: Architecture) -> bool:
    """Whether a dense checkpoint's tensor becomes part of an expert in `mix`."""
    if mix.attention == "average":
        return is_ffn(name)
    shared = mix.attention == "experts-shared-kv" and is_key_value(name)
    return is_ffn(name) or (is_attention(name) and not shared)


def expert_name(name: str, number: int) -> str:
    """What a dense checkpoint's tensor is called as part of expert `number`."""
    part = ".mlp." if is_ffn(name) else ".self_attn."
    return name.replace(part, f"{part}experts.{number}.")


def check_same_tensors(seed: Manifest, experts: Iterable[Manifest]) -> None:
    """Raises Incompatible."""
    expected = seed.architecture.tensor_shapes()
    for expert in experts:
        shapes = {name: entry.shape for name, entry in expert.tensors.items()}
        if shapes != expected:
            names = sorted(n for n in shapes | expected if shapes.get(n) != expected.get(n))
            raise Incompatible(f"an expert differs from its seed in the shape of {names[0]}")
