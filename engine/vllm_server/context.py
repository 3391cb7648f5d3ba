"""The context of a served model, and the memory of its engine.

The context is how many tokens a prompt and its answer can have together.

It is the model's own. On a CPU, where the key-value cache has a fixed size, it is no longer than
one request that fills that cache.
"""

import os

from engine.vllm_build import is_cpu_build, serving_dtype
from registry.checkpoints.architecture import Architecture

# vLLM does not size the cache by the memory it finds on a CPU. The variable is vLLM's own.
KV_CACHE_GIB = 1
# Private memory of an engine that has loaded its libraries and no model.
PROCESS_BYTES = 1_500_000_000
KV_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
# vLLM allocates whole blocks, at most this large on a CPU, and keeps one of them back.
BLOCK_TOKENS = 128


def context_tokens(architecture: Architecture) -> int:
    """Return the length in tokens of the longest text that our engine serves of this network."""
    own = architecture.max_position_embeddings
    return min(own, _tokens_in_cache(architecture)) if is_cpu_build() else own


def _tokens_in_cache(architecture: Architecture) -> int:
    """Return the number of tokens whose keys and values fill the cache of a CPU."""
    gib = float(os.environ.get(KV_CACHE_VARIABLE, KV_CACHE_GIB))
    tokens = int(gib * 2**30) // _bytes_per_token(architecture)
    return max(1, tokens // BLOCK_TOKENS - 1) * BLOCK_TOKENS


def _bytes_per_token(architecture: Architecture) -> int:
    heads = architecture.num_key_value_heads
    if architecture.num_experts and architecture.attention == "experts":
        # Each expert has its own keys and values in the wide attention.
        heads *= architecture.num_experts
    layers = sum(map(architecture.has_attention, range(architecture.num_hidden_layers)))
    width = 4 if serving_dtype() == "float32" else 2
    return 2 * layers * heads * architecture.head_dim * width


def engine_bytes(architecture: Architecture) -> int:
    """Return about how much memory an engine takes in bytes: code, weights and KV cache."""
    width = 4 if serving_dtype() == "float32" else 2
    return PROCESS_BYTES + width * architecture.num_parameters + (KV_CACHE_GIB << 30)
