"""`config.json` is read strictly: only a network that can be built is accepted.

Covers: config_fields.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from registry.checkpoints import config_fields
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
        ("tie_word_embeddings", 1, "expected true or false"),
        ("combine", "product", "supported: ('convex', 'sum')"),
        ("expert_names", "abc", "expected a list"),
        ("model_type", "gemma3", "send its text model, of type 'gemma3_text'; supported: llama,"),
        ("hidden_act", "gelu", "supported: ('silu',)"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, reason: str) -> None:
    problems = refusal(**{field: value})
    assert list(problems) == [f"/config/{field}"]
    assert reason in problems[f"/config/{field}"]


def test_a_theta_that_is_no_number_is_refused() -> None:
    config = {k: v for k, v in tiny.config().items() if k not in ROPE}
    with pytest.raises(InvalidCheckpoint, match="no supported model") as error:
        Architecture.from_config(config | {"rope_theta": "large"})
    assert "expected a positive number" in error.value.problems[0].detail


def test_an_unknown_rope_is_refused() -> None:
    assert "/config/rope_parameters/rope_type" in refusal(rope_parameters="su", rope_theta=1e4)


@pytest.mark.parametrize("is_null", [True, False], ids=["null", "left out"])
def test_fields_that_say_nothing_have_the_defaults_of_transformers(is_null: bool) -> None:
    silent = ("rms_norm_eps", "max_position_embeddings", "head_dim", "attention_bias", "hidden_act")
    config = {k: v for k, v in tiny.config().items() if k not in {*silent, *ROPE}}
    if is_null:
        config |= dict.fromkeys((*silent, *ROPE))
    ours = Architecture.from_config(config)
    theirs = LlamaConfig(**config_fields.without_nulls(config))
    assert ours.rms_norm_eps == theirs.rms_norm_eps == 1e-6
    assert ours.max_position_embeddings == theirs.max_position_embeddings
    assert ours.head_dim == theirs.head_dim
    assert ours.rope_theta == (theirs.rope_parameters or {})["rope_theta"] == 10_000


ROPE = ("rope_theta", "rope_parameters", "rope_scaling")
THETAS = st.sampled_from([None, 10_000.0, 500_000.0, 7])
FACTORS = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KINDS = st.sampled_from([None, "default", "linear", "dynamic", "llama3", "yarn"])


@given(
    top=THETAS,
    inner=THETAS,
    kind=KINDS,
    old_kind=KINDS,
    place=st.sampled_from(["rope_parameters", "rope_scaling"]),
    partial=st.sampled_from([None, 1.0, 0.5]),
    factors=st.sampled_from([{}, {"factor": 4}, FACTORS]),
)
def test_a_rope_means_what_transformers_reads_or_is_refused(
    top: float | None,
    inner: float | None,
    kind: str | None,
    old_kind: str | None,
    place: str,
    partial: float | None,
    factors: dict[str, float],
) -> None:
    config = {k: v for k, v in tiny.config().items() if k not in ROPE}
    entries = {"rope_theta": inner, "rope_type": kind, "type": old_kind} | factors
    rope = {k: v for k, v in entries.items() if v is not None}
    config |= {} if top is None else {"rope_theta": top}
    config |= {place: rope} if rope else {}
    config |= {} if partial is None else {"partial_rotary_factor": partial}
    try:
        ours = Architecture.from_config(config)
    except InvalidCheckpoint:
        return
    theirs = LlamaConfig(**json.loads(json.dumps(config))).rope_parameters or {}
    assert ours.rope_theta == theirs["rope_theta"]
    assert theirs.get("partial_rotary_factor", 1.0) == 1.0
    if ours.is_plain_llama:
        assert theirs["rope_type"] == "default"
    else:
        read = ours.base_fields["rope_parameters"]
        assert read.items() <= theirs.items()
        assert theirs["rope_type"] != "default"


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_scaled_positions_are_read_in_both_spellings(place: str, key: str) -> None:
    config = {k: v for k, v in tiny.config().items() if k not in ROPE}
    read = Architecture.from_config(config | {place: {key: "linear", "factor": 4}})
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4}
    assert read.base_fields == {"attention_bias": False, "rope_parameters": rope}
    assert not read.is_plain_llama


def test_two_thetas_are_refused() -> None:
    rope = {"rope_type": "default", "rope_theta": 500_000}
    problems = refusal(rope_theta=10_000, rope_parameters=rope)
    assert problems["/config/rope_theta"] == (
        "is 10000 at the top and 500000 in rope_parameters: leave the wrong one out"
    )


def test_a_width_that_no_head_divides_is_refused() -> None:
    assert "multiple of 4 heads" in refusal(hidden_size=30)["/config/hidden_size"]


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
