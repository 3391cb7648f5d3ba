"""A finished mix with an expert more, fewer, or renewed: what was learned stays where it stands.

Nexus (arXiv 2408.15901, section 3.2): the new expert's FFN is appended, its row is the projection
of its domain, and what is no expert follows the mean of the experts. Removing and replacing are the
same with other experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from assembler.assembly.averaging import each, mean
from assembler.assembly.upcycle import check_same_tensors, expert_name, finished, is_expert
from assembler.recipes.recipe import Recipe
from assembler.routing.router_init import Routers
from registry import numpy_tensors
from registry.architecture import Architecture, is_ffn
from registry.blobs import BlobStore
from registry.manifests import Manifest, TensorEntry
from registry.numpy_tensors import Floats


@dataclass(frozen=True, kw_only=True)
class Base:
    """The mix that is extended; `experts` are its own, pinned, with their dense checkpoints."""

    mix: Manifest
    experts: Mapping[str, Manifest]

    def position(self, ref: str) -> int | None:
        refs = list(self.experts)
        return refs.index(ref) if ref in refs else None


def projection_of(base: Manifest) -> dict[str, TensorEntry]:
    """W1 and W2 as the base learned them; empty for routers without a projection."""
    return {name: entry for name, entry in base.tensors.items() if ".gate.projection." in name}


def extend(
    recipe: Recipe,
    mix: Architecture,
    *,
    base: Base,
    seed: Manifest,
    experts: Sequence[Manifest],
    routers: Routers,
    blobs: BlobStore,
) -> Manifest:
    """The mix of `recipe`, which lists all experts, from `base`, which has some of them.

    `routers` are initial ones of all experts: rows of experts that the base has are taken from it,
    unless the recipe resets them. Raises Incompatible when an expert has other tensors than the
    seed.
    """
    check_same_tensors(seed, experts)
    places = [base.position(ref) for ref in recipe.experts]
    if not recipe.shared_expert:
        # The routed seed, which stays the last.
        places.append(len(base.experts))
    members = [*experts, seed][: len(places)]
    averaged = [name for name in seed.tensors if not is_expert(name, mix)]
    before = [*base.experts.values(), *([] if recipe.shared_expert else [seed])]
    moved_mean = partial(_moved_mean, before=before, after=members, base=base, blobs=blobs)
    entries = each(averaged, moved_mean)
    for name in seed.tensors:
        if is_expert(name, mix):
            for number, (place, member) in enumerate(zip(places, members, strict=True)):
                entries[expert_name(name, number)] = (
                    member.tensors[name]
                    if place is None
                    else base.mix.tensors[expert_name(name, place)]
                )
        if is_ffn(name) and recipe.shared_expert:
            shared = name.replace(".mlp.", ".mlp.shared_expert.")
            entries[shared] = base.mix.tensors[shared]
    kept = _kept(recipe, routers, base=base, places=places, blobs=blobs)
    return finished(seed, mix, entries=entries, routers=kept, blobs=blobs)


def _moved_mean(
    name: str,
    *,
    before: Sequence[Manifest],
    after: Sequence[Manifest],
    base: Base,
    blobs: BlobStore,
) -> TensorEntry:
    """The base's tensor, moved by as much as the mean of its experts moves.

    Of a base without a finetune that is the paper's running mean, `(1 - lambda) base + lambda new`
    with lambda 1 / (n + 1). What a finetune has added to the mean stays whole, where the paper
    would shrink it with every expert that joins. It is rounded once more than a mean of all.
    """
    own, members = base.mix.tensors[name], [*before, *after]
    if len({member.tensors[name].digest for member in members}) == 1:
        return own
    weights = [-1 / len(before)] * len(before) + [1 / len(after)] * len(after)
    entries = [own, *(member.tensors[name] for member in members)]
    return mean(entries, blobs=blobs, weights=[1.0, *weights])


def _kept(
    recipe: Recipe, routers: Routers, *, base: Base, places: Sequence[int | None], blobs: BlobStore
) -> Routers:
    """`routers` with what the base has learned in the place of what would be initial."""
    if recipe.router != "nexus" and recipe.router_extension == "reset":
        return routers

    def old(name: str) -> Floats:
        return numpy_tensors.read(blobs, base.mix.tensors[name])

    embeddings_LNM = routers.domain_embeddings
    return replace(
        routers,
        rows={name: _chosen(rows, old(name), places) for name, rows in routers.rows.items()},
        shared={name: base.mix.tensors[name] for name in routers.shared},
        domain_embeddings=(
            None
            if embeddings_LNM is None
            else _chosen(embeddings_LNM, old("model.domain_embeddings"), places)
        ),
    )


def _chosen(initial: Floats, old: Floats, places: Sequence[int | None]) -> Floats:
    """Rows, on the last axis but one, of `old` where it has them, else those of `initial`."""
    rows = [
        initial[..., number, :] if place is None else old[..., place, :]
        for number, place in enumerate(places)
    ]
    return np.stack(rows, axis=-2)
