"""The int8 layers of a config, and the tensors that such a config requires."""

import pytest

from registry.checkpoints.int8_config import (
    CONFIG_FIELD,
    int8_modules,
    largest_weight,
    quantization_config,
    with_scales,
)
from registry.errors import InvalidCheckpoint
from tests import tiny

MODULES = ["model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj"]
CONFIG = {CONFIG_FIELD: quantization_config(MODULES, largest_weight=64)}


def test_a_written_config_is_read_unchanged() -> None:
    assert int8_modules(CONFIG) == set(MODULES)
    assert largest_weight(CONFIG) == 64


def test_a_plain_config_has_nothing_in_int8() -> None:
    assert int8_modules(tiny.config()) == frozenset()
    assert largest_weight(tiny.config()) == 0


def test_int8_weights_have_a_scale_for_each_output() -> None:
    plain = tiny.ARCHITECTURE.tensor_shapes()
    stored = with_scales(plain, CONFIG)
    assert stored.keys() - plain.keys() == {f"{module}.weight_scale" for module in MODULES}
    assert stored["model.layers.1.mlp.down_proj.weight"] == (32, 64)
    assert stored["model.layers.1.mlp.down_proj.weight_scale"] == (32, 1)


@pytest.mark.parametrize(
    "scheme",
    [
        {"quant_method": "gptq", "bits": 4},
        CONFIG[CONFIG_FIELD] | {"kv_cache_scheme": {"num_bits": 8}},
        "int8",
    ],
)
def test_another_scheme_is_refused(scheme: object) -> None:
    with pytest.raises(InvalidCheckpoint, match="not supported") as refused:
        int8_modules({CONFIG_FIELD: scheme})
    assert refused.value.problems[0].pointer == "/config/quantization_config"


@pytest.mark.parametrize("stray", ["model.norm", "model.layers.9.mlp.up_proj"])
def test_an_int8_layer_that_does_not_exist_is_refused(stray: str) -> None:
    config = {CONFIG_FIELD: quantization_config([stray], largest_weight=127)}
    with pytest.raises(InvalidCheckpoint) as refused:
        with_scales(tiny.ARCHITECTURE.tensor_shapes(), config)
    assert refused.value.problems[0].detail == stray
