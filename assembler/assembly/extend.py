"""Add, remove or replace an expert of a finished mix, and keep what its finetune has learned.

Nexus (arXiv 2408.15901, section 3.2): the new expert's FFN is appended, its router row is the
projection of its domain, and all other tensors follow the mean of the experts. Removing and
replacing do the same with other experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from assembler.assembly import regression
from assembler.assembly.averaging import each, mean
from assembler.assembly.regression import Member
from assembler.assembly.upcycle import check_same_tensors, finished, is_expert
from assembler.recipes.recipe import Recipe
from assembler.routing.router_init import Routers
from assembler.routing.router_rows import Learned
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.checkpoints.tensor_names import (
    DOMAIN_EMBEDDINGS,
    as_routed_expert,
    as_shared_expert,
    is_ffn,
    is_projection,
    is_router_rows,
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The mix that is changed, and its experts by pinned name."""

    mix: Manifest
    experts: Mapping[str, Member]

    def position(self, ref: str) -> int | None:
        """Return the place of an expert in the mix, None if the mix does not have it."""
        refs = list(self.experts)
        return refs.index(ref) if ref in refs else None


def learned_routers(base: Base, recipe: Recipe) -> Learned | None:
    """Return the base's projection and rows for the recipe's experts, None without a projection."""
    tensors = base.mix.tensors
    projection = {name: entry for name, entry in tensors.items() if is_projection(name)}
    if not projection:
        return None
    rows = {name: entry for name, entry in tensors.items() if is_router_rows(name)}
    places = [base.position(ref) for ref in recipe.experts]
    return Learned(projection=projection, rows=rows, places=places)


def extend(
    recipe: Recipe,
    mix: Architecture,
    *,
    base: Base,
    seed: Manifest,
    experts: Sequence[Member],
    routers: Routers,
    blobs: BlobStore,
) -> Manifest:
    """Assemble the mix of `recipe`, which lists all experts, from `base`, which has some of them.

    `routers` holds initial rows for all experts. Rows of experts that the base has come from the
    base, unless the recipe resets them. Raises Incompatible if the tensors of an expert differ from
    the seed's in name or shape.
    """
    check_same_tensors(seed, [expert.checkpoint for expert in experts])
    places = [base.position(ref) for ref in recipe.experts]
    if not recipe.shared_expert:
        # The routed seed stays last.
        places.append(len(base.experts))
    as_member = Member(checkpoint=seed)
    members = [*experts, as_member][: len(places)]
    averaged = [name for name in seed.tensors if not is_expert(name, mix)]
    before = [*base.experts.values(), *([] if recipe.shared_expert else [as_member])]
    moved = partial(_moved, seed=seed, before=before, after=members, base=base, blobs=blobs)
    entries = each(averaged, moved)
    for name in seed.tensors:
        if is_expert(name, mix):
            for number, (place, member) in enumerate(zip(places, members, strict=True)):
                entries[as_routed_expert(name, number)] = (
                    member.checkpoint.tensors[name]
                    if place is None
                    else base.mix.tensors[as_routed_expert(name, place)]
                )
        if is_ffn(name) and recipe.shared_expert:
            shared = as_shared_expert(name)
            entries[shared] = base.mix.tensors[shared]
    kept = _keep_learned(recipe, routers, base=base, places=places, blobs=blobs)
    return finished(seed, mix, entries=entries, routers=kept, blobs=blobs)


def _moved(
    name: str,
    *,
    seed: Manifest,
    before: Sequence[Member],
    after: Sequence[Member],
    base: Base,
    blobs: BlobStore,
) -> TensorEntry:
    """Move the base's tensor by the difference between the new and the old average of the experts.

    For a base without a finetune this equals the paper's running mean, `(1 - lambda) base + lambda
    new` with lambda = 1 / (n + 1). What a finetune has added to the mean stays whole; the paper's
    formula would shrink it with every new expert. The same holds for averages by regression. The
    result is rounded once more than an average of all experts.
    """
    entry, members = base.mix.tensors[name], [*before, *after]
    if len({member.checkpoint.tensors[name].digest for member in members}) == 1:
        return entry
    old, new = (regression.of_inputs(name, side) for side in (before, after))
    if old is not None or new is not None:
        return regression.moved(
            entry,
            seed=seed.tensors[name],
            before=old or regression.of_mean(name, before),
            after=new or regression.of_mean(name, after),
            blobs=blobs,
        )
    weights = [-1 / len(before)] * len(before) + [1 / len(after)] * len(after)
    entries = [entry, *(member.checkpoint.tensors[name] for member in members)]
    return mean(entries, blobs=blobs, weights=[1.0, *weights])


def _keep_learned(
    recipe: Recipe, routers: Routers, *, base: Base, places: Sequence[int | None], blobs: BlobStore
) -> Routers:
    """Return `routers` with the rows, projection and embeddings that the base has learned."""
    if recipe.router != "nexus" and recipe.router_extension == "reset":
        return routers

    def old(name: str) -> Floats:
        return numpy_tensors.read(blobs, base.mix.tensors[name])

    embeddings_LNM = routers.domain_embeddings
    return replace(
        routers,
        rows={name: _choose_rows(rows, old(name), places) for name, rows in routers.rows.items()},
        shared={name: base.mix.tensors[name] for name in routers.shared},
        domain_embeddings=(
            None
            if embeddings_LNM is None
            else _choose_rows(embeddings_LNM, old(DOMAIN_EMBEDDINGS), places)
        ),
    )


def _choose_rows(initial: Floats, old: Floats, places: Sequence[int | None]) -> Floats:
    """Return the rows [..., N, M] of `old` at the given places, and of `initial` where None."""
    rows = [
        initial[..., number, :] if place is None else old[..., place, :]
        for number, place in enumerate(places)
    ]
    return np.stack(rows, axis=-2)
