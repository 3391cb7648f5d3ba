"""Names, rows and norms of GGUF files are those of the reference library and of transformers."""

from functools import partial

import gguf
import numpy as np
import pytest

from registry.bases.supported import BASES
from registry.imports import gguf_names
from registry.imports.gguf_names import Layout
from tests import tiny_gguf

LLAMA, QWEN2, GEMMA3 = (gguf_names.LAYOUTS[name] for name in ("llama", "qwen2", "gemma3"))
QUERY, VALUE, NORM = (
    f"model.layers.0.{part}.weight"
    for part in ("self_attn.q_proj", "self_attn.v_proj", "input_layernorm")
)


@pytest.mark.parametrize(
    ("name", "layout", "expected"),
    [
        ("blk.11.attn_q.weight", LLAMA, "model.layers.11.self_attn.q_proj.weight"),
        ("blk.0.attn_k.bias", QWEN2, "model.layers.0.self_attn.k_proj.bias"),
        ("blk.0.ffn_norm.weight", LLAMA, "model.layers.0.post_attention_layernorm.weight"),
        ("blk.0.ffn_norm.weight", GEMMA3, "model.layers.0.pre_feedforward_layernorm.weight"),
        ("output.weight", LLAMA, "lm_head.weight"),
        ("rope_freqs.weight", LLAMA, None),
        ("blk.x.attn_q.weight", LLAMA, None),
    ],
)
def test_names_are_those_of_transformers(name: str, layout: Layout, expected: str | None) -> None:
    assert gguf_names.in_transformers(name, layout) == expected


@pytest.mark.parametrize("kind", gguf_names.LAYOUTS)
def test_parts_have_the_names_of_the_reference_library(kind: str) -> None:
    architecture = gguf.MODEL_ARCH_NAMES.items()
    number = next(number for number, name in architecture if name == kind)
    names = gguf.get_tensor_name_map(number, 1)
    for part, name in gguf_names.LAYOUTS[kind].parts.items():
        assert names.get_name(f"model.layers.0.{name}") == f"blk.0.{part}"


@pytest.mark.parametrize("layout", gguf_names.LAYOUTS.values(), ids=gguf_names.LAYOUTS)
def test_layouts_are_of_supported_bases(layout: Layout) -> None:
    assert gguf_names.of_base(layout.model_type) is layout
    base = BASES[layout.model_type]
    parts = {f"self_attn.{name}" for name in base.attention} | {f"mlp.{name}" for name in base.ffn}
    parts |= {f"{name}.weight" for name in base.norms}
    assert {part.rpartition(".")[0] for part in parts} == set(layout.parts.values())


def test_rows_of_queries_come_back_in_order() -> None:
    rows = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    stored = tiny_gguf.interleaved(rows, 4)
    assert not np.array_equal(stored, rows)
    assert np.array_equal(gguf_names.without_interleaving(stored, 4), rows)


def test_only_queries_and_keys_of_llama_are_interleaved() -> None:
    values = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    read = partial(gguf_names.as_transformers, values, num_heads=4)
    expected = gguf_names.without_interleaving(values, 4)
    assert np.array_equal(read(QUERY, LLAMA), expected)
    assert np.array_equal(read(VALUE, LLAMA), values)
    assert np.array_equal(read(QUERY, QWEN2), values)


def test_norms_of_gemma_have_1_added_in_files() -> None:
    values = np.ones(3, np.float32)
    read = partial(gguf_names.as_transformers, values, num_heads=1)
    assert read(NORM, GEMMA3).tolist() == [0, 0, 0]
    assert read("model.norm.weight", GEMMA3).tolist() == [0, 0, 0]
    assert read(QUERY, GEMMA3).tolist() == [1, 1, 1]
    assert read(NORM, QWEN2).tolist() == [1, 1, 1]
