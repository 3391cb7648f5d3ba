"""What does not fit a checkpoint, another option or the host is named before anything starts."""

from dataclasses import replace
from typing import Any

import pytest

from engine.vllm_build import is_cpu_build
from engine.vllm_server import devices, option_checks
from engine.vllm_server.engine_options import EngineOptions
from registry import settings
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import int8_config
from registry.checkpoints.manifests import Manifest
from registry.errors import RefusedOptions
from tests import tiny

on_a_cpu = pytest.mark.skipif(not is_cpu_build(), reason="a card's cache has no fixed size")


@pytest.fixture
def dense(blobs: LocalBlobs) -> Manifest:
    """Return a network of 4 heads, 2 of keys and values, whose context has 256 tokens."""
    return tiny.store_manifest(blobs)


@pytest.fixture
def on_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check as a host with two cards does."""
    monkeypatch.setattr(option_checks, "is_cpu_build", lambda: False)
    monkeypatch.setenv(devices.VISIBLE, "0,1")
    monkeypatch.setenv("NEXUSMIX_HOST_NAME", "rack-1")
    settings.settings.cache_clear()


def found(manifest: Manifest, **fields: Any) -> dict[str, str]:
    """Return what is wrong with options, by the option."""
    options = EngineOptions.model_validate(fields)
    return {
        problem.pointer.removeprefix("/options/"): problem.detail
        for problem in option_checks.problems(options, manifest)
    }


def test_the_defaults_and_sensible_options_fit(dense: Manifest) -> None:
    assert found(dense) == {}
    args = {"max_num_seqs": 8, "max_num_batched_tokens": 64, "block_size": 32}
    fits = {"context": 256, "dtype": "bfloat16", "tool_parser": "hermes", "engine_args": args}
    assert found(dense, **fits) == {}


def test_a_context_beyond_the_models_own(dense: Manifest) -> None:
    assert found(dense, context=257) == {"context": "is 257, the model has a context of 256"}


@on_a_cpu
def test_a_cache_that_cannot_hold_the_context(dense: Manifest) -> None:
    """A token takes 1,024 bytes here, and 20 times as many in 40 layers."""
    assert found(dense, context=256, kv_memory_bytes=2**21) == {}
    layers = replace(dense.architecture, num_hidden_layers=40, max_position_embeddings=4096)
    deep = replace(dense, config=layers.to_config())
    refused = found(deep, context=4096, kv_memory_bytes=2**23)
    assert set(refused) == {"kv_memory_bytes"}
    assert "8388608 bytes of KV memory hold 256 tokens" in refused["kv_memory_bytes"]
    assert "a context of at most 256" in refused["kv_memory_bytes"]


def test_tensors_are_not_divided_without_cards(
    dense: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(option_checks, "is_cpu_build", lambda: True)
    expected = "is 2, engines without GPUs run in one process: 1"
    assert found(dense, tensor_parallel=2) == {"tensor_parallel": expected}
    assert found(dense, tensor_parallel=1) == {}


@pytest.mark.parametrize(
    ("ranks", "detail"),
    [
        (2, None),
        (3, "is 3, must divide the model's 4 heads"),
        (4, "is 4, host 'rack-1' has 2 GPUs"),
    ],
)
@pytest.mark.usefixtures("on_cards")
def test_heads_and_cards_limit_the_division(
    dense: Manifest, ranks: int, detail: str | None
) -> None:
    refused = found(dense, tensor_parallel=ranks)
    assert refused.get("tensor_parallel") == detail or ranks == 3


@pytest.mark.usefixtures("on_cards")
def test_the_heads_of_attention_experts_are_one_attention(dense: Manifest) -> None:
    """Three experts of 4 heads have 12, and their 6 key-value heads cannot be divided by 4."""
    mix = replace(
        dense.architecture,
        num_experts=3,
        expert_names=("a", "b", "c"),
        attention="experts",
        router="linear",
    )
    wide = replace(dense, config=mix.to_config())
    assert option_checks._heads(wide.architecture) == (12, 6)
    detail = "is 4, must divide 6 key-value heads or be a multiple"
    assert detail in [
        problem.detail for problem in option_checks.problems(EngineOptions(tensor_parallel=4), wide)
    ]


def test_float16_is_too_narrow_for_some_bases(dense: Manifest) -> None:
    assert found(dense, dtype="float16") == {}
    gemma = replace(dense.architecture, base_model_type="gemma2")
    options = EngineOptions(dtype="float16")
    wide = replace(dense)
    object.__setattr__(wide, "architecture", gemma)
    [problem] = option_checks._dtype_problems(options, wide)
    assert "go beyond it: bfloat16 or float32" in problem.detail


def test_int8_weights_are_not_computed_in_float32_on_a_card(
    dense: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = int8_config.quantization_config(["model.layers.0.mlp.up_proj"], largest_weight=127)
    small = replace(dense, config=dense.config | {int8_config.CONFIG_FIELD: scheme})
    monkeypatch.setattr(option_checks, "is_cpu_build", lambda: True)
    assert found(small, dtype="float32") == {}
    monkeypatch.setattr(option_checks, "is_cpu_build", lambda: False)
    expected = "is 'float32', a GPU computes int8 weights in bfloat16 or float16"
    assert found(small, dtype="float32") == {"dtype": expected}


def test_chat_needs_a_tokenizer(dense: Manifest) -> None:
    mute = replace(dense, files={})
    refused = found(mute, chat_template="{{ messages }}", tool_parser="hermes")
    assert set(refused) == {"chat_template", "tool_parser"}
    assert "needs a tokenizer" in refused["chat_template"]


def test_a_parser_that_vllm_does_not_have(dense: Manifest) -> None:
    [detail] = found(dense, tool_parser="hermess").values()
    assert detail.startswith("is 'hermess'; vLLM has ")
    assert "hermes," in detail


def test_arguments_that_contradict_each_other(dense: Manifest) -> None:
    args = {"max_num_seqs": 8, "max_num_batched_tokens": 4}
    detail = "is 4, must be at least max_num_seqs, 8"
    assert found(dense, engine_args=args) == {"engine_args/max_num_batched_tokens": detail}


def test_small_blocks_need_a_card(dense: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(option_checks, "is_cpu_build", lambda: True)
    detail = "is 16, without GPUs it must be at least 32"
    assert found(dense, engine_args={"block_size": 16}) == {"engine_args/block_size": detail}


def test_a_template_is_rendered_with_the_tokens_of_the_checkpoint(
    dense: Manifest, blobs: LocalBlobs
) -> None:
    loop = "{{ bos_token + '' }}{% for m in messages %}{{ m.content }}{% endfor %}"
    options = EngineOptions(chat_template=loop)
    assert list(option_checks.template_problems(options, dense, blobs)) == []
    [problem] = option_checks.template_problems(options, replace(dense, files={}), blobs)
    assert problem.pointer == "/options/chat_template"
    assert "UndefinedError" in problem.detail


def test_one_refusal_names_everything(dense: Manifest) -> None:
    options = EngineOptions.model_validate(
        {"context": 300, "tool_parser": "x", "engine_args": {"block_size": 16}}
    )
    with pytest.raises(RefusedOptions) as refused:
        option_checks.check(options, dense)
    assert len(refused.value.problems) == (3 if is_cpu_build() else 2)
    assert "context is 300, the model has a context of 256; tool_parser is 'x'" in str(
        refused.value
    )
