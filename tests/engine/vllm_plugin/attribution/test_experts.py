"""Which experts a model has, from its config."""

from dataclasses import replace

from transformers import GPT2Config, LlamaConfig

from engine.vllm_plugin.attribution.experts import SHARED, Experts, mix_of
from engine.vllm_plugin.config import NexusConfig
from registry.checkpoints.architecture import Architecture
from registry.names import NAME
from tests import tiny
from tests.assembler.networks import ARCHITECTURES, NEXUS


def read(a: Architecture) -> Architecture | None:
    return mix_of(NexusConfig.from_dict(a.to_config()))


def test_a_mix_is_known_by_its_config() -> None:
    for a in ARCHITECTURES.values():
        assert read(a) == (a if a.num_experts else None)


def test_a_model_of_another_kind_is_no_mix() -> None:
    assert mix_of(LlamaConfig.from_dict(tiny.config())) is None
    assert mix_of(GPT2Config()) is None


def test_a_mix_without_names_is_none() -> None:
    assert read(replace(NEXUS, expert_names=())) is None


def test_the_shared_expert_comes_last() -> None:
    assert Experts.of(NEXUS).names == (*NEXUS.expert_names, SHARED)
    assert Experts.of(ARCHITECTURES["btx"]).names == ARCHITECTURES["btx"].expert_names
    assert not NAME.fullmatch(SHARED), "an expert could have this name"


def test_an_expert_that_is_off_for_all_is_not_named() -> None:
    experts = Experts.of(ARCHITECTURES["convex-disabled"])
    assert experts.numbers == {"expert-0": 0, "expert-1": 1}
    assert experts.speakers == ("expert-0", "expert-1", SHARED)
    assert len(experts.names) == 4, "rows have a column for it"
