"""Every base means what transformers reads, has its tensors, and knows all fields of its config.

Covers: base, own_fields, rope.
"""

import json
from dataclasses import fields
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from registry.bases.supported import BASES, REFUSED
from registry.checkpoints.architecture import Architecture
from registry.errors import InvalidCheckpoint
from tests.assembler import base_networks
from tests.assembler.base_networks import CONFIGS

# Fields that no network of ours reads: of training, special tokens, and what other fields decide.
IGNORED = {
    "use_cache",
    "initializer_range",
    "pretraining_tp",
    "attention_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "original_max_position_embeddings",
    "no_rope_layer_interval",
    "sliding_window",
    "max_window_layers",
    "default_theta",
}

# What no config may leave out.
REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@pytest.mark.parametrize("name", BASES)
def test_every_field_of_the_config_is_known(name: str) -> None:
    base = BASES[name]
    own = {f.name for f in fields(CONFIG_MAPPING[name])} - {
        f.name for f in fields(PreTrainedConfig)
    }
    known = {f.name for f in fields(Architecture)} | base.fields.keys() | base.fixed.keys()
    known |= {base.activation_field, "rope_parameters", "layer_types"}
    assert own - known <= IGNORED
    assert base.fields.keys() | base.fixed.keys() <= own | {"no_rope_layers"}


@pytest.mark.parametrize("name", BASES)
def test_fields_that_are_left_out_have_the_defaults_of_transformers(name: str) -> None:
    config = {key: base_networks.COMMON[key] for key in REQUIRED} | {"model_type": name}
    # Some bases have a fixed number of key heads, or of their width, where it is left out.
    config["num_attention_heads"] = BASES[name].defaults.get("num_key_value_heads", 4)
    theirs = CONFIG_MAPPING[name](**json.loads(json.dumps(config)))
    ours = Architecture.from_config(config)
    assert ours == Architecture.from_config(theirs.to_dict())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_means_what_transformers_reads(name: str) -> None:
    config = base_networks.config(name)
    theirs = CONFIG_MAPPING[config["model_type"]].from_dict(json.loads(json.dumps(config)))
    assert Architecture.from_config(config) == Architecture.from_config(theirs.to_dict())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_tensors_are_those_of_transformers(name: str) -> None:
    architecture = base_networks.dense(name)
    config = CONFIG_MAPPING[architecture.base_model_type].from_dict(base_networks.config(name))
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    if architecture.tie_word_embeddings:
        del shapes["lm_head.weight"]
    assert architecture.tensor_shapes() == shapes


@pytest.mark.parametrize("name", CONFIGS)
def test_a_written_config_is_read_unchanged(name: str) -> None:
    for architecture in (base_networks.dense(name), base_networks.mixed(name)):
        config = json.loads(json.dumps(architecture.to_config()))
        assert Architecture.from_config(config) == architecture
    assert config["model_type"] == "nexus"
    assert config["base_model_type"] == architecture.base_model_type


@pytest.mark.parametrize(
    ("name", "changes", "field", "reason"),
    [
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window", "is True, supported"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "layer_types", "'sliding_attention'"),
        ("qwen2", {"head_dim": 64}, "head_dim", "Qwen2, Qwen2.5 has 128 / 4"),
        ("olmo2", {"attention_bias": 1}, "attention_bias", "expected true or false"),
        ("qwen3", {"attention_bias": True}, "attention_bias", "is True, supported: (False,)"),
        ("mistral", {"sliding_window": 0}, "sliding_window", "a whole number from 1"),
        ("mistral", {"layer_types": ["full_attention"] * 2}, "layer_types", "for all layers"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation", "gelu_pytorch_tanh"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types", "a list of 2"),
        ("gemma2", {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar", "positive number"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping", "is 30.0"),
        ("smollm3", {"no_rope_layers": [1, 2, 1, 0]}, "no_rope_layers", "0 or 1 for each of 4"),
        ("granite", {"mlp_bias": True}, "mlp_bias", "is True, supported: (False,)"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters/rope_type", "is"),
        (
            "llama-yarn",
            {"rope_parameters": {"rope_type": "yarn", "truncate": False, "factor": 2.0}},
            "rope_parameters/truncate",
            "is false",
        ),
        (
            "llama-yarn",
            {"rope_parameters": {"rope_type": "yarn"}},
            "rope_parameters/factor",
            "is missing, which 'yarn' needs",
        ),
        (
            "llama-yarn",
            {"parallel_block": True},
            "parallel_block",
            "supported for a plain Llama only",
        ),
    ],
)
def test_a_wrong_field_is_named(
    name: str, changes: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(InvalidCheckpoint) as refused:
        Architecture.from_config(base_networks.config(name) | changes)
    [problem] = refused.value.problems
    assert problem.pointer == f"/config/{field}"
    assert reason in problem.detail


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_base_is_named_with_the_reason_and_the_list(name: str) -> None:
    with pytest.raises(InvalidCheckpoint) as refused:
        Architecture.from_config(base_networks.config("qwen2") | {"model_type": name})
    [problem] = refused.value.problems
    assert REFUSED[name] in problem.detail
    assert "supported: llama, qwen2, qwen3, mistral" in problem.detail
