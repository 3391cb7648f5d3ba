"""Mixes of every base and kind that stock programs can hold, and their folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from assembler.stock.model_card import Origins, Work
from assembler.stock.stock_export import StockExport
from registry.blobs.blobs import BlobStore
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from tests.assembler import base_networks
from tests.assembler.base_networks import COMMON, HEAD, NUM_EXPERTS, WIDE


def _mixed(model_type: str, **fields: Any) -> Architecture:
    """Return the architecture of a convex mix with Nexus routers."""
    dense = Architecture.from_config(COMMON | {"model_type": model_type, **fields})
    names = tuple(f"expert-{number}" for number in range(NUM_EXPERTS))
    return replace(dense, num_experts=NUM_EXPERTS, expert_names=names, domain_embedding_size=16)


def _linear(mix: Architecture) -> Architecture:
    return replace(mix, router="linear", domain_embedding_size=0)


_LLAMA, _QWEN3 = _mixed("llama", **WIDE), _mixed("qwen3", **HEAD)
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_BTX: dict[str, Any] = {
    "combine": "sum",
    "shared_expert": False,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}

MIXES: dict[str, Architecture] = {
    "llama": replace(_LLAMA, rope_theta=50_000.0, rms_norm_eps=1e-3, tie_word_embeddings=True),
    "llama-linear-top-2": replace(_linear(_LLAMA), num_experts_per_tok=2),
    "llama-sum": replace(_LLAMA, combine="sum"),
    "llama-btx": replace(_linear(_LLAMA), **_BTX),
    "llama-disabled": replace(_LLAMA, num_experts_per_tok=3, disabled_experts=(1,)),
    "llama-one-left": replace(_LLAMA, disabled_experts=(0, 2)),
    "llama-dynamic": _mixed(
        "llama", rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e5}, **WIDE
    ),
    "llama-llama3": _mixed(
        "llama",
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        rope_theta=1e5,
        **WIDE,
    ),
    "mistral": _mixed("mistral", sliding_window=None, **WIDE),
    "mistral-wide-window": _mixed("mistral", sliding_window=256, **WIDE),
    "qwen2": _mixed("qwen2", tie_word_embeddings=True, **WIDE),
    "qwen2-yarn": _mixed("qwen2", rope_scaling=_YARN, rope_theta=1e6, **WIDE),
    "qwen3": _mixed("qwen3", rope_theta=1e6, tie_word_embeddings=True, **HEAD),
    "qwen3-sum": replace(_QWEN3, combine="sum", num_experts_per_tok=2, norm_topk_prob=True),
    "qwen3-yarn": _mixed("qwen3", rope_scaling=_YARN, rope_theta=1e6, **HEAD),
}


def origins(ref: str = "tiny-mix@1") -> Origins:
    """Return origins with two licenses."""
    seed = Work(ref="tiny", license="Apache-2.0", digest="0" * 64, description="A seed.")
    experts = tuple(
        Work(ref=f"expert-{n}@1", license="MIT", digest=f"{n}" * 64) for n in range(NUM_EXPERTS)
    )
    return Origins(ref=ref, seed=seed, experts=experts, recipe={"preset": "nexus"})


def export(
    architecture: Architecture,
    blobs: BlobStore,
    folder: Path,
    *,
    max_shard_bytes: int = 100_000_000,
) -> Manifest:
    """Store a random mix and export it; return its manifest."""
    manifest = base_networks.store(blobs, architecture)
    exported = StockExport(manifest, blobs, origins(), max_shard_bytes=max_shard_bytes)
    exported.write(folder, on_bytes=lambda _: None)
    return manifest
