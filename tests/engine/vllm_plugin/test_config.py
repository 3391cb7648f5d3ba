"""vLLM's config class keeps every field of the architecture."""

from dataclasses import fields, replace

import pytest

from engine.vllm_plugin.config import NexusConfig
from registry.checkpoints.architecture import Architecture
from tests.assembler import base_networks
from tests.assembler.networks import ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_keeps_the_whole_architecture(name: str) -> None:
    architecture = ARCHITECTURES[name]
    config = NexusConfig(**architecture.to_config()).to_dict()
    assert Architecture.from_config(config) == architecture


@pytest.mark.parametrize("name", base_networks.CONFIGS)
def test_a_mix_of_another_base_has_the_config_class_of_the_base(name: str) -> None:
    architecture = base_networks.mixed(name)
    config = NexusConfig.from_dict(architecture.to_config())
    assert type(config).model_type == architecture.base_model_type
    assert Architecture.from_config(config.to_dict()) == architecture


def test_config_declares_every_field_of_a_mixture() -> None:
    declared = vars(NexusConfig)["__annotations__"]
    mixture_fields = {f.name for f in fields(Architecture)} & set(vars(Architecture))
    # A mix of another base has the base's own config class.
    mixture_fields.remove("base_model_type")
    assert declared.keys() - {"model_type"} == mixture_fields


def test_defaults_equal_those_of_the_architecture() -> None:
    dense = ARCHITECTURES["dense-parallel"]
    stated = {k: v for k, v in dense.to_config().items() if k != "parallel_block"}
    config = NexusConfig(**stated).to_dict()
    assert Architecture.from_config(config) == replace(dense, parallel_block=False)
