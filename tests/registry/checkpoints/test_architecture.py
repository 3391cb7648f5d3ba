"""`config.json` is read strictly: only a network that can be built is accepted."""

from dataclasses import replace
from typing import Any

import pytest

from registry.checkpoints.architecture import Architecture
from registry.errors import InvalidCheckpoint
from tests import tiny

MIX = {
    "num_experts": 3,
    "expert_names": ("a", "b", "c"),
    "domain_embedding_size": 16,
    "combine": "sum",
}


def refusal(**changes: Any) -> dict[str, str]:
    with pytest.raises(InvalidCheckpoint) as error:
        Architecture.from_config(tiny.config() | changes)
    return {problem.pointer: problem.detail for problem in error.value.problems}


@pytest.mark.parametrize("changes", [{}, MIX], ids=["dense", "mix"])
def test_a_written_config_is_read_unchanged(changes: dict[str, Any]) -> None:
    architecture = replace(tiny.ARCHITECTURE, **changes)
    assert Architecture.from_config(architecture.to_config()) == architecture


def test_configs_of_older_transformers_are_read() -> None:
    config = tiny.config() | {"rope_theta": 500.0, "head_dim": None}
    del config["rope_parameters"], config["num_key_value_heads"]
    architecture = Architecture.from_config(config)
    assert (architecture.rope_theta, architecture.head_dim) == (500.0, 8)
    assert architecture.num_key_value_heads == 4


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("hidden_size", None, "is missing"),
        ("hidden_size", "32", "expected a whole number from 1 to"),
        ("hidden_size", 0, "expected a whole number from 1 to"),
        ("hidden_size", 2**40, "expected a whole number from 1 to"),
        ("vocab_size", True, "expected a whole number"),
        ("num_hidden_layers", 10**6, "at most 1024"),
        ("num_key_value_heads", 3, "must divide 4 heads"),
        ("rms_norm_eps", -1.0, "expected a positive number"),
        ("rope_theta", "large", "expected a positive number"),
        ("tie_word_embeddings", 1, "expected true or false"),
        ("combine", "product", "supported: ('convex', 'sum')"),
        ("expert_names", "abc", "expected a list"),
        ("model_type", "gemma3", "supported: ('llama', 'nexus')"),
        ("hidden_act", "gelu", "supported: ('silu',)"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, reason: str) -> None:
    problems = refusal(**{field: value})
    assert list(problems) == [f"/config/{field}"]
    assert reason in problems[f"/config/{field}"]


def test_an_unknown_rope_is_refused() -> None:
    assert "/config/rope_parameters/rope_type" in refusal(rope_parameters="yarn", rope_theta=1e4)


def test_every_wrong_field_is_named() -> None:
    assert len(refusal(hidden_size=None, vocab_size="x", mlp_bias=True)) == 3


GAPS: dict[str, Any] = {"ffn_sizes": (0, 32), "layers_without_attention": (1,)}


def test_a_network_with_removed_parts_is_no_stock_llama() -> None:
    architecture = replace(tiny.ARCHITECTURE, **GAPS)
    config = architecture.to_config()
    assert Architecture.from_config(config) == architecture
    assert config["architectures"] == ["NexusForCausalLM"]
    shapes = architecture.tensor_shapes()
    assert "model.layers.0.input_layernorm.weight" in shapes
    assert "model.layers.0.post_attention_layernorm.weight" not in shapes
    assert not any(name.startswith("model.layers.1.self_attn.") for name in shapes)
    assert shapes["model.layers.1.mlp.down_proj.weight"] == (32, 32)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"ffn_sizes": [64]}, "ffn_sizes", "has 1 widths, of 2 layers"),
        ({"ffn_sizes": [64, 65]}, "ffn_sizes", "has 65, expected widths up to 64"),
        ({"ffn_sizes": [64, "all"]}, "ffn_sizes", "has 'all'"),
        ({"layers_without_attention": [2]}, "layers_without_attention", "names no layer: 2"),
        ({"layers_without_attention": [0, 1]}, "layers_without_attention", "leaves no attention"),
        (MIX | {"ffn_sizes": [64, 0]}, "ffn_sizes", "from a dense network"),
    ],
)
def test_impossible_removed_parts_are_refused(
    changes: dict[str, Any], field: str, reason: str
) -> None:
    assert reason in refusal(**changes)[f"/config/{field}"]
