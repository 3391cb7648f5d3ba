"""The context of a served model, and the memory of its engine.

The context is how many tokens a prompt and its answer can have together.

It is the model's own, unless the options of its deployment say less. On a CPU, where the key-value
cache has a fixed size, it is no longer than one request that fills that cache.
"""

import os

from engine.vllm_build import is_cpu_build, serving_dtype
from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry.checkpoints.architecture import Architecture

# vLLM does not size the cache by the memory it finds on a CPU. The variable is vLLM's own; it is
# the default of all engines here.
KV_CACHE_GIB = 1
KV_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
# Private memory of an engine that has loaded its libraries and no model.
PROCESS_BYTES = 1_500_000_000
# vLLM allocates whole blocks, by default this large on a CPU, and keeps one of them back.
BLOCK_TOKENS = 128


def context_tokens(architecture: Architecture, options: EngineOptions = DEFAULT) -> int:
    """Return the length in tokens of the longest text that our engine serves of this network."""
    own = options.context or architecture.max_position_embeddings
    return min(own, max(1, cached_tokens(architecture, options))) if is_cpu_build() else own


def cached_tokens(architecture: Architecture, options: EngineOptions = DEFAULT) -> int:
    """Return the number of tokens whose keys and values fill the cache of a CPU.

    It is 0 when the cache has no room for two blocks.
    """
    block = options.engine_args.block_size or BLOCK_TOKENS
    tokens = kv_cache_bytes(options) // bytes_per_token(architecture, options)
    return max(0, tokens // block - 1) * block


def kv_cache_bytes(options: EngineOptions = DEFAULT) -> int:
    """Return the size of the key-value cache in bytes; on a GPU without the option, a guess."""
    if options.kv_memory_bytes is not None:
        return options.kv_memory_bytes
    return int(float(os.environ.get(KV_CACHE_VARIABLE, KV_CACHE_GIB)) * 2**30)


def bytes_per_token(architecture: Architecture, options: EngineOptions = DEFAULT) -> int:
    """Return the bytes of the keys and values of one token."""
    heads = architecture.num_key_value_heads
    if architecture.num_experts and architecture.attention == "experts":
        # Each expert has its own keys and values in the wide attention.
        heads *= architecture.num_experts
    layers = sum(map(architecture.has_attention, range(architecture.num_hidden_layers)))
    return 2 * layers * heads * architecture.head_dim * _width(options)


def engine_bytes(architecture: Architecture, options: EngineOptions = DEFAULT) -> int:
    """Return about how much memory an engine takes in bytes: code, weights and KV cache.

    The cache is allocated whole, so a shorter context takes no less.
    """
    weights = _width(options) * architecture.num_parameters
    return PROCESS_BYTES + weights + kv_cache_bytes(options)


def _width(options: EngineOptions) -> int:
    """Return the bytes of one number."""
    return 4 if (options.dtype or serving_dtype()) == "float32" else 2
