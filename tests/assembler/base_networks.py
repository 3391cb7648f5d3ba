"""Checkpoints of tiny random networks of every supported base, dense and mixed."""

import math
from dataclasses import replace
from typing import Any

import torch

from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from tests import tiny

NUM_EXPERTS = 3

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# The narrowest head that vLLM serves on a CPU; of some bases it must be hidden size / heads.
HEAD = {"head_dim": 32}
WIDE = {"hidden_size": 128}


def llama(**rope: Any) -> dict[str, Any]:
    """Return the config of a Llama with scaled positions and with biases."""
    scaling = {"rope_theta": 10_000.0, **rope}
    return {"model_type": "llama", "attention_bias": True, "rope_parameters": scaling, **HEAD}


# What each config says besides COMMON; windows are shorter than the texts of the tests.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-linear": llama(rope_type="linear", factor=4.0),
    "llama-dynamic": llama(rope_type="dynamic", factor=4.0),
    "llama-llama3": llama(
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    ),
    "llama-yarn": llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=64),
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, **WIDE},
    "qwen2-yarn": {
        "model_type": "qwen2",
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        "rope_theta": 1_000_000.0,
        **WIDE,
    },
    "qwen3": {"model_type": "qwen3", **HEAD},
    "mistral": {"model_type": "mistral", "sliding_window": 16, **HEAD},
    "gemma2": {
        "model_type": "gemma2",
        "attention_bias": True,
        "tie_word_embeddings": True,
        "sliding_window": 16,
        "query_pre_attn_scalar": 24,
        "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 2.0,
        **HEAD,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "attention_bias": True,
        "tie_word_embeddings": True,
        "num_hidden_layers": 3,
        "sliding_window": 16,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 24,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        **HEAD,
    },
    "olmo2": {"model_type": "olmo2", "attention_bias": True, **WIDE},
    "phi3": {"model_type": "phi3", "sliding_window": 16, **WIDE},
    "granite": {
        "model_type": "granite",
        "attention_bias": True,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.7,
        "logits_scaling": 1.5,
        **WIDE,
    },
    "smollm3": {
        "model_type": "smollm3",
        "attention_bias": True,
        "num_hidden_layers": 4,
        **WIDE,
    },
}


def config(name: str) -> dict[str, Any]:
    """Return the `config.json` of a dense model."""
    return COMMON | CONFIGS[name]


def dense(name: str) -> Architecture:
    """Return the architecture of a dense model."""
    return Architecture.from_config(config(name))


def mixed(name: str) -> Architecture:
    """Return the architecture of a mix of models of one base."""
    names = tuple(f"expert-{number}" for number in range(NUM_EXPERTS))
    return replace(
        dense(name), num_experts=NUM_EXPERTS, expert_names=names, domain_embedding_size=16
    )


def store(blobs: BlobStore, architecture: Architecture, *, seed: int = 0) -> Manifest:
    """Store a checkpoint with a different random tensor for every name."""
    entries = {}
    for position, (name, shape) in enumerate(architecture.tensor_shapes().items()):
        generator = torch.Generator().manual_seed(1000 * seed + position)
        values = torch.randn(shape, generator=generator)
        values = values / (8 if len(shape) == 1 else math.sqrt(shape[-1]))
        # Gemma's norms multiply by one more than their weight.
        if "norm" in name and not architecture.base_model_type.startswith("gemma"):
            values = 1 + values
        entries[name] = tensors.write(blobs, values.bfloat16())
    kept = {name: COMMON[name] for name in COMMON if name.endswith(("token_id", "dtype"))}
    return Manifest(
        config=kept | architecture.to_config(),
        tensors=entries,
        files=tiny.store_manifest(blobs).files,
    )
