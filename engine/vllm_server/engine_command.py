"""The command line of a vLLM server. All that differs between two servers of a model is in it."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.launch.launcher import HOST, PORT, SOCKET
from engine.vllm_build import is_cpu_build, serving_dtype
from engine.vllm_plugin.plugin import LOAD_FORMAT
from engine.vllm_server import tool_parsers
from engine.vllm_server.context import context_tokens, kv_cache_bytes
from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry import tracing
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import CONFIG, TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint
from registry.settings import settings


def command(
    folder: Path, *, names: Sequence[str], manifest: Manifest, options: EngineOptions = DEFAULT
) -> list[str]:
    """Return the command line that serves the model folder of `manifest` under model names."""
    return _command(
        folder,
        names=names,
        load_format=LOAD_FORMAT,
        config=manifest.config,
        has_tokenizer=TOKENIZER in manifest.files,
        options=options,
    )


def of_folder(folder: Path, *, names: Sequence[str]) -> list[str]:
    """Return the command line that serves a Hugging Face folder with vLLM's own loader."""
    return _command(
        folder,
        names=names,
        load_format="auto",
        config=json.loads((folder / CONFIG).read_text()),
        has_tokenizer=(folder / TOKENIZER).is_file(),
        options=DEFAULT,
    )


def template_path(template: str) -> Path:
    """Return the file of a chat template, named by its digest."""
    digest = hashlib.sha256(template.encode()).hexdigest()
    return settings().cache_path / "serving" / f"{digest}.jinja"


def _command(
    folder: Path,
    *,
    names: Sequence[str],
    load_format: str,
    config: Mapping[str, Any],
    has_tokenizer: bool,
    options: EngineOptions,
) -> list[str]:
    words: dict[str, object] = {
        "model": folder,
        "load-format": load_format,
        "dtype": options.dtype or serving_dtype(),
        "max-model-len": _max_model_len(config, options),
        "middleware": "engine.vllm_plugin.attribution.middleware.NexusField",
    }
    if settings().launcher == "local":
        words["uds"] = SOCKET
    else:
        words |= {"host": HOST, "port": PORT}
    flags = []
    if is_cpu_build():
        flags.append("enforce-eager")
        words |= {
            "worker-cls": "engine.vllm_plugin.attribution.worker.AttributingWorker",
            "scheduler-cls": "engine.vllm_plugin.attribution.scheduler.AttributingScheduler",
        }
    else:
        words["gpu-memory-utilization"] = settings().server_gpu_memory
    if is_cpu_build() or options.kv_memory_bytes is not None:
        words["kv-cache-memory-bytes"] = kv_cache_bytes(options)
    if options.tensor_parallel is not None:
        words["tensor-parallel-size"] = options.tensor_parallel
    for name, value in options.engine_args.model_dump(exclude_none=True).items():
        if isinstance(value, bool):
            flags.append(name if value else f"no-{name}")
        else:
            words[name] = value
    if (collector := tracing.collector()) is not None:
        words["otlp-traces-endpoint"] = collector
    if not has_tokenizer:
        flags.append("skip-tokenizer-init")
    if options.chat_template is not None:
        words["chat-template"] = template_path(options.chat_template)
    template = options.chat_template or tool_parsers.template_of(folder)
    if (parser := options.tool_parser or tool_parsers.find(template)) is not None:
        flags.append("enable-auto-tool-choice")
        words["tool-call-parser"] = parser
    return [
        sys.executable,
        *("-m", "engine.vllm_plugin.api_server"),
        *(f"--{name.replace('_', '-')}={value}" for name, value in words.items()),
        *(f"--{flag.replace('_', '-')}" for flag in flags),
        "--served-model-name",
        *names,
    ]


def _max_model_len(config: Mapping[str, Any], options: EngineOptions) -> str:
    """Return the option of that name for the model of a `config.json`.

    `auto` lets vLLM take the model's own context, or as much of it as its cache can hold. On a card
    only vLLM knows that size, and of a folder of another family only vLLM knows the network.
    """
    if options.context is not None:
        return str(options.context)
    try:
        architecture = Architecture.from_config(dict(config))
    except InvalidCheckpoint:
        return "auto"
    return str(context_tokens(architecture, options)) if is_cpu_build() else "auto"
