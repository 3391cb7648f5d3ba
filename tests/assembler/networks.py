"""Checkpoints of tiny random networks, one for every kind of architecture."""

import math
import re
from dataclasses import replace

import torch

from engine.compression import int8_units
from engine.compression.int8_units import Target
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from tests import tiny

NUM_EXPERTS = 3
EXPERT_NUMBER = re.compile(r"(?<=\.experts\.)\d+(?=\.)")

NEXUS = replace(
    tiny.ARCHITECTURE,
    num_experts=NUM_EXPERTS,
    expert_names=tuple(f"expert-{i}" for i in range(NUM_EXPERTS)),
    domain_embedding_size=16,
)
LINEAR = replace(NEXUS, router="linear", domain_embedding_size=0)
BTX = replace(
    LINEAR, shared_expert=False, combine="sum", num_experts_per_tok=2, norm_topk_prob=True
)
BAM = replace(LINEAR, shared_expert=False, combine="sum", attention="experts")
BAM_SHARED_KV = replace(BAM, attention="experts-shared-kv")

ARCHITECTURES: dict[str, Architecture] = {
    "dense": tiny.ARCHITECTURE,
    "dense-parallel": replace(tiny.ARCHITECTURE, parallel_block=True),
    "untied": replace(NEXUS, tie_word_embeddings=False),
    "convex": NEXUS,
    "convex-top-2": replace(NEXUS, num_experts_per_tok=2),
    "convex-parallel": replace(NEXUS, parallel_block=True),
    "convex-disabled": replace(NEXUS, disabled_experts=(NUM_EXPERTS - 1,)),
    "sum": replace(NEXUS, combine="sum"),
    "sum-renormalized": replace(LINEAR, combine="sum", num_experts_per_tok=2, norm_topk_prob=True),
    "mlp": replace(LINEAR, router="mlp", router_hidden_size=24),
    "btx": BTX,
    "btx-disabled": replace(BTX, disabled_experts=(NUM_EXPERTS - 1,)),
    "bam": BAM,
    "bam-top-2": replace(BAM, num_attention_experts_per_tok=2),
    "bam-disabled": replace(BAM, disabled_experts=(NUM_EXPERTS - 1,)),
    "bam-shared-kv": BAM_SHARED_KV,
    "bam-shared-kv-top-1": replace(BAM_SHARED_KV, num_attention_experts_per_tok=1),
    "bam-shared-kv-parallel": replace(BAM_SHARED_KV, parallel_block=True),
    "nexus-with-attention": replace(NEXUS, attention="experts-shared-kv"),
}


def store(blobs: BlobStore, architecture: Architecture) -> Manifest:
    """Store a checkpoint with a different random tensor for every name."""
    entries = {}
    for position, (name, shape) in enumerate(architecture.tensor_shapes().items()):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(position))
        is_norm = len(shape) == 1
        values = 1 + values / 8 if is_norm else values / math.sqrt(shape[-1])
        entries[name] = tensors.write(blobs, values.bfloat16())
    return Manifest(
        config=tiny.config() | architecture.to_config(),
        tensors=entries,
        files=tiny.store_manifest(blobs).files,
    )


def without_expert(mix: Manifest, number: int, blobs: BlobStore) -> Manifest:
    """Remove an expert: a mix with the expert disabled must compute the same.

    Every softmax then runs over the other experts only. Those behind it move up.
    """
    kept = {}
    for name, entry in mix.tensors.items():
        if found := EXPERT_NUMBER.search(name):
            other = int(found[0])
            if other == number:
                continue
            name = EXPERT_NUMBER.sub(str(other - (other > number)), name)
        is_gate = name.endswith((".mlp.gate.weight", ".self_attn.gate.weight"))
        if is_gate or name == "model.domain_embeddings":
            rows = tensors.read(blobs, entry)
            kept_rows = torch.cat([rows[..., :number, :], rows[..., number + 1 :, :]], dim=-2)
            entry = tensors.write(blobs, kept_rows)
        kept[name] = entry
    before = mix.architecture
    names = tuple(name for i, name in enumerate(before.expert_names) if i != number)
    after = replace(
        before,
        num_experts=len(names),
        expert_names=names,
        disabled_experts=(),
        num_experts_per_tok=min(before.num_experts_per_tok, len(names)),
        num_attention_experts_per_tok=min(before.num_attention_experts_per_tok, len(names)),
    )
    return replace(mix, config=mix.config | after.to_config(), tensors=kept)


def int8_modules(manifest: Manifest, target: Target) -> list[str]:
    """Return all linear layers that can be int8."""
    return int8_units.modules(int8_units.units(manifest, target))
