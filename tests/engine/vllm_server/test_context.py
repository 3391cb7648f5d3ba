"""The context is the model's own, as far as the cache of a CPU holds it."""

from dataclasses import replace

import pytest

from engine.vllm_build import is_cpu_build
from engine.vllm_server import context
from engine.vllm_server.engine_options import EngineOptions
from registry.checkpoints.architecture import Architecture, Attention
from tests import tiny

# 131,072 positions, of which 65,536 bytes each are cached in float32.
LONG = replace(
    tiny.ARCHITECTURE,
    hidden_size=2048,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    max_position_embeddings=131_072,
)
on_a_cpu = pytest.mark.skipif(not is_cpu_build(), reason="a card's cache has no fixed size")


@pytest.mark.parametrize("own", [128, 2048, 8192])
def test_the_context_is_the_models_own(own: int) -> None:
    architecture = replace(tiny.ARCHITECTURE, max_position_embeddings=own)
    assert context.context_tokens(architecture) == own


@on_a_cpu
def test_a_context_that_the_cache_cannot_hold_ends_where_it_is_full() -> None:
    tokens = context.context_tokens(LONG)
    assert 2**30 - 3 * 128 * 65_536 < tokens * 65_536 < 2**30


@on_a_cpu
def test_a_larger_cache_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    before = context.context_tokens(LONG)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert context.context_tokens(LONG) > 1.9 * before


@on_a_cpu
@pytest.mark.parametrize(("attention", "times"), [("experts", 4), ("experts-shared-kv", 1)])
def test_attention_experts_share_the_cache(attention: Attention, times: int) -> None:
    mix: Architecture = replace(
        LONG, num_experts=4, expert_names=("a", "b", "c", "d"), attention=attention
    )
    expected = context.context_tokens(LONG) / times
    assert context.context_tokens(mix) == pytest.approx(expected, abs=2 * 128)


def test_weights_and_cache_take_memory() -> None:
    weights = 4 * tiny.ARCHITECTURE.num_parameters
    expected = context.PROCESS_BYTES + weights + 2**30
    assert context.engine_bytes(tiny.ARCHITECTURE) == expected


@on_a_cpu
def test_options_change_context_and_memory() -> None:
    """A cache of half the size holds half as much, and numbers of half the width twice as much."""
    whole, weights = context.cached_tokens(LONG), 4 * LONG.num_parameters
    small = EngineOptions(kv_memory_bytes=2**29)
    assert context.cached_tokens(LONG, small) == pytest.approx(whole / 2, abs=128)
    assert context.engine_bytes(LONG, small) == context.PROCESS_BYTES + weights + 2**29
    narrow = EngineOptions(dtype="bfloat16")
    assert context.cached_tokens(LONG, narrow) == pytest.approx(whole * 2, abs=256)
    assert context.engine_bytes(LONG, narrow) == context.PROCESS_BYTES + weights // 2 + 2**30
    assert context.context_tokens(LONG, EngineOptions(context=1000)) == 1000
