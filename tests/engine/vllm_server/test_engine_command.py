"""The command line of a server has its checkpoint and its options, and nothing else decides."""

from pathlib import Path

import pytest

from engine.vllm_build import is_cpu_build
from engine.vllm_server import engine_command
from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry import settings
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests import tiny

TEMPLATE = "{% if tools %}<tool_call>{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def dense(blobs: LocalBlobs) -> Manifest:
    return tiny.store_manifest(blobs)


def command(manifest: Manifest, options: EngineOptions = DEFAULT) -> list[str]:
    return engine_command.command(
        Path("/models/m"), names=["m"], manifest=manifest, options=options
    )


def test_the_command_fits_the_checkpoint(dense: Manifest) -> None:
    words = command(dense)
    assert "--uds={socket}" in words
    assert "--skip-tokenizer-init" not in words
    assert words[-2:] == ["--served-model-name", "m"]


@pytest.mark.skipif(not is_cpu_build(), reason="on a card vLLM sizes context and cache")
def test_context_and_cache_are_said_without_a_card(dense: Manifest) -> None:
    words = command(dense)
    assert "--max-model-len=256" in words
    assert f"--kv-cache-memory-bytes={2**30}" in words


def test_options_are_words_of_the_command(dense: Manifest) -> None:
    options = EngineOptions.model_validate(
        {
            "context": 128,
            "kv_memory_bytes": 2**28,
            "dtype": "bfloat16",
            "tensor_parallel": 2,
            "chat_template": TEMPLATE,
            "engine_args": {
                "max_num_seqs": 3,
                "max_num_batched_tokens": 64,
                "enable_prefix_caching": False,
                "block_size": 32,
            },
        }
    )
    words = set(command(dense, options))
    assert words >= {
        "--max-model-len=128",
        f"--kv-cache-memory-bytes={2**28}",
        "--dtype=bfloat16",
        "--tensor-parallel-size=2",
        f"--chat-template={engine_command.template_path(TEMPLATE)}",
        # The template asks for such calls.
        "--tool-call-parser=hermes",
        "--enable-auto-tool-choice",
        "--max-num-seqs=3",
        "--max-num-batched-tokens=64",
        "--no-enable-prefix-caching",
        "--block-size=32",
    }
    chosen = options.model_copy(update={"tool_parser": "mistral"})
    assert "--tool-call-parser=mistral" in command(dense, chosen)


@pytest.mark.parametrize(
    "fields",
    [
        {"context": 128},
        {"kv_memory_bytes": 2**28},
        {"dtype": "bfloat16"},
        {"chat_template": TEMPLATE},
        {"tool_parser": "hermes"},
        {"engine_args": {"max_num_seqs": 3}},
    ],
)
def test_a_changed_option_is_another_command(dense: Manifest, fields: dict[str, object]) -> None:
    changed = EngineOptions.model_validate(fields)
    assert command(dense, changed) != command(dense)
    assert command(dense, changed) == command(dense, EngineOptions.model_validate(fields))


def test_another_template_is_another_file() -> None:
    paths = {engine_command.template_path(text) for text in (TEMPLATE, TEMPLATE + " ")}
    assert len(paths) == 2


@pytest.mark.parametrize(("launcher", "share"), [("local", "0.4"), ("ray", "0.9")])
def test_gpu_memory_leaves_room_for_the_previous_version(
    launcher: str, share: str, dense: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both versions share one GPU; on a cluster each server has its own."""
    monkeypatch.setattr(engine_command, "is_cpu_build", lambda: False)
    monkeypatch.setenv("NEXUSMIX_LAUNCHER", launcher)
    settings.settings.cache_clear()
    words = command(dense)
    assert f"--gpu-memory-utilization={share}" in words
    assert "--enforce-eager" not in words
