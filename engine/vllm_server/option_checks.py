"""Find out, before anything starts, whether the options of an engine fit a checkpoint and a host.

The service asks when options are requested. The agent asks again on the host that runs the engine:
it may have other devices, and options may be those of the version before.
"""

import json
from collections.abc import Iterator
from typing import Any

from engine.vllm_build import is_cpu_build
from engine.vllm_server import chat_template, devices, tool_parsers
from engine.vllm_server.context import bytes_per_token, cached_tokens, kv_cache_bytes
from engine.vllm_server.engine_options import MIN_CONTEXT, EngineOptions
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints import int8_config
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import TOKENIZER, TOKENIZER_CONFIG
from registry.checkpoints.manifests import Manifest
from registry.errors import NotFound, Problem, RefusedOptions, pointer
from registry.settings import settings

# The field of a request that holds them.
AT = "options"
REFUSED = "the engine cannot run with these options"
# vLLM refuses float16 for these: their numbers grow beyond its range.
BEYOND_FLOAT16 = frozenset({"gemma2", "gemma3_text"})
# The smallest block of vLLM's attention on a CPU.
MIN_CPU_BLOCK = 32
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token")


def check(options: EngineOptions, manifest: Manifest) -> None:
    """Raise RefusedOptions with every option that does not fit; do not render the template."""
    found = tuple(problems(options, manifest))
    if found:
        listed = "; ".join(f"{each.pointer.rpartition('/')[2]} {each.detail}" for each in found)
        raise RefusedOptions(f"{REFUSED}: {listed}", problems=found)


def problems(options: EngineOptions, manifest: Manifest) -> Iterator[Problem]:
    """Yield each option that does not fit the checkpoint, another option, or this host."""
    a = manifest.architecture
    yield from _memory_problems(options, a)
    yield from _parallel_problems(options, a)
    yield from _dtype_problems(options, manifest)
    yield from _chat_problems(options, manifest)
    yield from _argument_problems(options)


def template_problems(
    options: EngineOptions, manifest: Manifest, blobs: BlobStore
) -> Iterator[Problem]:
    """Yield what is wrong with the chat template, after it has written a conversation."""
    if options.chat_template is not None:
        tokens = _special_tokens(manifest, blobs)
        if detail := chat_template.problem(options.chat_template, tokens):
            yield Problem(pointer(AT, "chat_template"), detail)


def _memory_problems(options: EngineOptions, a: Architecture) -> Iterator[Problem]:
    """Yield a context that is longer than the model's, or than the KV cache of a CPU."""
    own, asked = a.max_position_embeddings, options.context
    if asked is not None and asked > own:
        yield Problem(pointer(AT, "context"), f"is {asked}, the model has a context of {own}")
        return
    if not is_cpu_build():
        return
    held = cached_tokens(a, options)
    if held < (asked or MIN_CONTEXT):
        field = "kv_memory_bytes" if options.kv_memory_bytes is not None else "context"
        yield Problem(
            pointer(AT, field),
            f"is {getattr(options, field)}: {kv_cache_bytes(options)} bytes of KV memory hold"
            f" {held} tokens, {bytes_per_token(a, options)} bytes each with one block kept back;"
            f" take more of it, or a context of at most {held}",
        )


def _parallel_problems(options: EngineOptions, a: Architecture) -> Iterator[Problem]:
    """Yield a division that heads or inner sizes do not allow, or that needs more devices."""
    ranks, at = options.tensor_parallel or 1, pointer(AT, "tensor_parallel")
    if ranks == 1:
        return
    if is_cpu_build():
        yield Problem(at, f"is {ranks}, engines without GPUs run in one process: 1")
        return
    heads, groups = _heads(a)
    if heads % ranks:
        yield Problem(at, f"is {ranks}, must divide the model's {heads} heads")
    elif groups % ranks and ranks % groups:
        yield Problem(at, f"is {ranks}, must divide {groups} key-value heads or be a multiple")
    for size in sorted({a.ffn_size(layer) for layer in range(a.num_hidden_layers)}):
        if size % ranks:
            yield Problem(at, f"is {ranks}, must divide the inner size {size} of an FFN")
    has = devices.num_gpus() if settings().launcher == "local" else None
    if has is not None and ranks > has:
        yield Problem(at, f"is {ranks}, host {settings().host_name!r} has {has} GPUs")


def _heads(a: Architecture) -> tuple[int, int]:
    """Return the heads of the attention as vLLM sees it, of queries and of keys and values."""
    if not a.num_experts or a.attention == "average":
        return a.num_attention_heads, a.num_key_value_heads
    # The attention experts are one wide attention, see `engine.vllm_plugin.wide_attention`.
    groups = 1 if a.attention == "experts-shared-kv" else a.num_experts
    return a.num_experts * a.num_attention_heads, groups * a.num_key_value_heads


def _dtype_problems(options: EngineOptions, manifest: Manifest) -> Iterator[Problem]:
    base, at = manifest.architecture.base, pointer(AT, "dtype")
    if options.dtype == "float16" and base.model_type in BEYOND_FLOAT16:
        detail = f"is 'float16', numbers of {base.title} go beyond it: bfloat16 or float32"
        yield Problem(at, detail)
    is_int8 = int8_config.CONFIG_FIELD in manifest.config
    if options.dtype == "float32" and is_int8 and not is_cpu_build():
        yield Problem(at, "is 'float32', a GPU computes int8 weights in bfloat16 or float16")


def _chat_problems(options: EngineOptions, manifest: Manifest) -> Iterator[Problem]:
    """Yield options of a chat that a checkpoint cannot have, and an unknown parser."""
    for field in ("chat_template", "tool_parser"):
        if getattr(options, field) is not None and TOKENIZER not in manifest.files:
            yield Problem(pointer(AT, field), "needs a tokenizer, which the checkpoint lacks")
    parser, known = options.tool_parser, tool_parsers.registered()
    if parser is not None and known is not None and parser not in known:
        listed = ", ".join(sorted(known))
        yield Problem(pointer(AT, "tool_parser"), f"is {parser!r}; vLLM has {listed}")


def _argument_problems(options: EngineOptions) -> Iterator[Problem]:
    args = options.engine_args
    requests, tokens = args.max_num_seqs, args.max_num_batched_tokens
    if requests is not None and tokens is not None and tokens < requests:
        yield Problem(
            pointer(AT, "engine_args", "max_num_batched_tokens"),
            f"is {tokens}, must be at least max_num_seqs, {requests}",
        )
    if args.block_size is not None and args.block_size < MIN_CPU_BLOCK and is_cpu_build():
        detail = f"is {args.block_size}, without GPUs it must be at least {MIN_CPU_BLOCK}"
        yield Problem(pointer(AT, "engine_args", "block_size"), detail)


def _special_tokens(manifest: Manifest, blobs: BlobStore) -> dict[str, str]:
    """Return the special tokens that a template may write, by name."""
    digest = manifest.files.get(TOKENIZER_CONFIG)
    if digest is None:
        return {}
    try:
        config: Any = json.loads(get_bytes(blobs, digest))
    except (NotFound, ValueError):
        return {}
    tokens = {}
    for name in SPECIAL_TOKENS:
        token = config.get(name) if isinstance(config, dict) else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            tokens[name] = token
    return tokens
