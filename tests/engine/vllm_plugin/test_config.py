"""vLLM's config class keeps every field of the architecture."""

from dataclasses import fields, replace

import pytest

from engine.vllm_plugin.config import NexusConfig
from registry.checkpoints.architecture import Architecture
from tests.assembler.networks import ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_keeps_the_whole_architecture(name: str) -> None:
    architecture = ARCHITECTURES[name]
    config = NexusConfig(**architecture.to_config()).to_dict()
    assert Architecture.from_config(config) == architecture


def test_config_declares_every_field_of_a_mixture() -> None:
    declared = vars(NexusConfig)["__annotations__"]
    mixture_fields = {f.name for f in fields(Architecture)} & set(vars(Architecture))
    assert declared.keys() - {"model_type"} == mixture_fields


def test_defaults_equal_those_of_the_architecture() -> None:
    dense = ARCHITECTURES["dense-parallel"]
    stated = {k: v for k, v in dense.to_config().items() if k != "parallel_block"}
    config = NexusConfig(**stated).to_dict()
    assert Architecture.from_config(config) == replace(dense, parallel_block=False)
