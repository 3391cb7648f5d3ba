"""Tests of reading an adapter's config: what is needed, and what is refused by its name."""

import math
from typing import Any

import pytest

from registry.errors import InvalidCheckpoint
from registry.imports.lora_config import LoraConfig
from tests import tiny_adapters

Q_PROJ = "model.layers.3.self_attn.q_proj"


def read(**changes: Any) -> LoraConfig:
    return LoraConfig.read(tiny_adapters.config(**changes))


def test_scaling_is_alpha_by_rank_or_by_its_root() -> None:
    assert read().scaling_of(Q_PROJ) == 8 / 4
    assert read(use_rslora=True).scaling_of(Q_PROJ) == 8 / math.sqrt(4)


@pytest.mark.parametrize("key", ["q_proj", "self_attn.q_proj", Q_PROJ, f"^{Q_PROJ}"])
def test_patterns_name_the_end_of_a_module(key: str) -> None:
    config = read(rank_pattern={key: 16}, alpha_pattern={key: 4})
    assert config.rank_of(Q_PROJ) == 16
    assert config.scaling_of(Q_PROJ) == 4 / 16
    assert config.rank_of("model.layers.3.mlp.up_proj") == tiny_adapters.RANK


def test_the_first_matching_key_counts_as_in_peft() -> None:
    assert read(rank_pattern={"q_proj": 2, Q_PROJ: 3}).rank_of(Q_PROJ) == 2


def test_a_whole_name_is_no_end() -> None:
    assert read(rank_pattern={"^q_proj": 2}).rank_of(Q_PROJ) == tiny_adapters.RANK


@pytest.mark.parametrize(
    ("changes", "pointer", "word"),
    [
        ({"peft_type": "IA3"}, "/config/peft_type", "'IA3'"),
        ({"r": 0}, "/config/r", "is 0"),
        ({"r": True}, "/config/r", "is True"),
        ({"lora_alpha": "8"}, "/config/lora_alpha", "is '8'"),
        ({"rank_pattern": [8]}, "/config/rank_pattern", "must be an object"),
        ({"rank_pattern": {"q_proj": -1}}, "/config/rank_pattern/q_proj", "is -1"),
        ({"alpha_pattern": {"(a+)+b": 1}}, "/config/alpha_pattern/(a+)+b", "regular expression"),
        ({"init_lora_weights": "pissa_niter_4"}, "/config/init_lora_weights", "'pissa_niter_4'"),
        ({"alora_invocation_tokens": [1]}, "/config/alora_invocation_tokens", "cannot be merged"),
        ({"layer_replication": [[0, 2]]}, "/config/layer_replication", "not known here"),
        ({"trainable_token_indices": [1]}, "/config/trainable_token_indices", "not known here"),
        ({"lora_bias": True}, "/config/lora_bias", "not known here"),
    ],
)
def test_what_cannot_be_merged_is_refused(changes: dict[str, Any], pointer: str, word: str) -> None:
    with pytest.raises(InvalidCheckpoint) as caught:
        read(**changes)
    [problem] = caught.value.problems
    assert problem.pointer == pointer
    assert word in problem.detail
