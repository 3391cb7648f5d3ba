"""Warnings about a mix that can be made, each with the number that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from assembler.mixes.selection import Member
from assembler.planning.plan_data import PlanWarning
from assembler.recipes.recipe import Recipe
from assembler.routing.router_init import MAX_CONDITION, condition_number
from registry.blobs.blobs import BlobStore
from registry.catalog import experts
from registry.checkpoints import chat_templates
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.numpy_tensors import Floats
from registry.checkpoints.tensor_names import is_attention, is_ffn

# Two unit vectors with this cosine have the condition number MAX_CONDITION.
MAX_COSINE = (MAX_CONDITION**2 - 1) / (MAX_CONDITION**2 + 1)
MIN_DOCUMENTS = 8
# A finetune that reads the same text more often overfits it.
MAX_PASSES = 4.0
# For text in languages that the tokenizer has seen.
BYTES_PER_TOKEN = 4


def of_domains(names: Sequence[str], centered_LNM: Floats) -> Iterator[PlanWarning]:
    """Warn of domains whose centered embeddings [L, N, M] routers can hardly separate."""
    lengths_LN1 = np.linalg.norm(centered_LNM, axis=-1, keepdims=True)
    unit_LNM = centered_LNM / np.maximum(lengths_LN1, 1e-12)
    cosines_NN = (unit_LNM @ unit_LNM.swapaxes(-1, -2)).mean(0)
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        cosine = float(cosines_NN[i, j])
        if cosine > MAX_COSINE:
            detail = (
                f"the domains of {one!r} and {other!r} point the same way: their cosine"
                f" is {cosine:.3f} (above {MAX_COSINE:.2f})"
            )
            yield PlanWarning(kind="collinear-domains", detail=detail, value=cosine)
    number = float(np.median([condition_number(unit_NM) for unit_NM in unit_LNM]))
    if number > MAX_CONDITION:
        detail = (
            f"the condition number of the domain embeddings is {number:.1f} (above"
            f" {MAX_CONDITION:g}): tokens may be sent to the wrong experts"
        )
        yield PlanWarning(kind="condition", detail=detail, value=number)


def of_experts(members: Sequence[Member], seed: Manifest, recipe: Recipe) -> Iterator[PlanWarning]:
    """Warn of experts that equal the seed, and of changed attention; compares digests only."""
    averaging = _averaging(members, recipe)
    for member in members:
        ffn = [name for name in seed.tensors if is_ffn(name)]
        moved = _changed(member.manifest, seed, ffn)
        if not moved:
            detail = f"{member.name!r} has the FFNs of the seed: there is nothing to mix"
            yield PlanWarning(kind="nothing-to-mix", detail=detail, value=0.0)
        attention = [name for name in seed.tensors if is_attention(name)]
        moved = _changed(member.manifest, seed, attention)
        if moved and recipe.kind == "mixture" and recipe.attention == "average":
            detail = (
                f"{member.name!r} changed {moved} of {len(attention)} attention tensors of the"
                f" seed, which all experts of a mix share: {averaging}"
            )
            yield PlanWarning(kind="attention-moved", detail=detail, value=moved / len(attention))


def _averaging(members: Sequence[Member], recipe: Recipe) -> str:
    """Say what becomes of attention that several experts changed, and what would keep more."""
    plain = "their plain mean loses part of what it learned"
    if not recipe.shared_expert:
        return f"{plain}, since the seed is averaged too"
    if recipe.averaging == "mean":
        # A change keeps the average of its base.
        other = "a new mix" if recipe.base else "this mix"
        return f"{plain}; {other} with `averaging: regression` loses less"
    unknown = [
        experts.ref_of(member.version)
        for member in members
        if member.embedding is None or member.embedding.moments_digest is None
    ]
    if unknown:
        return (
            f"{plain}; a regression loses less, but what {', '.join(unknown)} reads was not stored"
            " at the registration: register it again"
        )
    return (
        "a regression on what each expert read keeps most of what it learned, and not all; an"
        " expert that changes FFNs alone keeps everything"
    )


def of_chat(members: Sequence[Member], seed: Manifest, blobs: BlobStore) -> Iterator[PlanWarning]:
    """Warn of experts that can chat where their mix cannot."""
    for member in members:
        if chat_templates.loses_template(member.manifest, seed, blobs):
            yield PlanWarning(kind="chat-template", detail=f"{member.name!r} {chat_templates.LOST}")


def of_documents(
    members: Sequence[Member], recipe: Recipe, blobs: BlobStore
) -> Iterator[PlanWarning]:
    """Warn of too little text to embed a domain or to train on, estimated from its size."""
    forgetful = [member for member in members if member.version.kept_documents is None]
    share = recipe.finetune.tokens / max(1, len(members) - len(forgetful))
    for member in members:
        num_documents = member.embedding.num_documents if member.embedding else 0
        if num_documents < MIN_DOCUMENTS:
            detail = (
                f"the domain of {member.name!r} is known from {num_documents} documents"
                f" (below {MIN_DOCUMENTS})"
            )
            yield PlanWarning(kind="few-documents", detail=detail, value=num_documents)
        if (digest := member.version.kept_documents) is None:
            yield _of_forgetful(member, recipe, num=len(forgetful), total=len(members))
            continue
        size = blobs.size(digest) or 0
        passes = share * BYTES_PER_TOKEN / max(size, 1)
        if passes > MAX_PASSES:
            detail = (
                f"the finetune reads the {size:,} bytes of text of {member.name!r} about"
                f" {passes:.0f} times"
            )
            yield PlanWarning(kind="little-text", detail=detail, value=passes)


def _of_forgetful(member: Member, recipe: Recipe, *, num: int, total: int) -> PlanWarning:
    """Say what cannot be done for an expert that keeps no documents."""
    finetune = "its domain is not read by the finetune; " if recipe.finetune.tokens else ""
    compress = "the compression is not chosen by it; " if recipe.compress else ""
    detail = (
        f"{experts.ref_of(member.version)} keeps no documents: {finetune}{compress}the gate cannot"
        f" judge it: {num} of {total} domains not judged"
    )
    return PlanWarning(kind="no-documents", detail=detail, value=num / total)


def of_machine(
    *, memory: Mapping[str, int], total_memory: int, disk_needed: int, disk_free: int
) -> Iterator[PlanWarning]:
    """Warn of steps that need more memory or disk than this machine has."""
    for step, needed in memory.items():
        if needed > total_memory:
            detail = (
                f"{step} needs about {needed / 1e9:.1f} GB of memory, this machine has"
                f" {total_memory / 1e9:.1f} GB"
            )
            yield PlanWarning(kind="memory", detail=detail, value=needed)
    if disk_needed > disk_free:
        detail = f"{disk_needed / 1e9:.1f} GB of disk are needed, {disk_free / 1e9:.1f} GB are free"
        yield PlanWarning(kind="disk", detail=detail, value=disk_needed)


def _changed(manifest: Manifest, seed: Manifest, names: Sequence[str]) -> int:
    """Return how many of these tensors differ from the seed's."""
    return sum(manifest.tensors[name].digest != seed.tensors[name].digest for name in names)
