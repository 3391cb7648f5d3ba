"""Names of GGUF files, and the order of rows of queries and keys."""

import numpy as np
import pytest

from registry.imports import gguf_names
from tests import tiny_gguf


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.11.attn_q.weight", "model.layers.11.self_attn.q_proj.weight"),
        ("blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
        ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ("output.weight", "lm_head.weight"),
        ("rope_freqs.weight", None),
        ("blk.x.attn_q.weight", None),
    ],
)
def test_names_are_those_of_transformers(name: str, expected: str | None) -> None:
    assert gguf_names.in_transformers(name) == expected


def test_rows_of_queries_come_back_in_order() -> None:
    rows = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    stored = tiny_gguf.interleaved(rows, 4)
    assert not np.array_equal(stored, rows)
    assert np.array_equal(gguf_names.without_interleaving(stored, 4), rows)


def test_only_queries_and_keys_of_llama_are_interleaved() -> None:
    query, value = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qv")
    assert gguf_names.is_interleaved(query, architecture="llama")
    assert not gguf_names.is_interleaved(value, architecture="llama")
    assert not gguf_names.is_interleaved(query, architecture="qwen2")
