"""The launcher of engines: on this machine they are forked from a process that has imported vLLM.

Most of the start of an engine is imports. One on a card starts from nothing, since CUDA does not
survive a fork.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from engine.launch import keeping, launchers
from engine.launch.forking_launcher import ForkingLauncher
from engine.launch.launcher import Launcher
from engine.vllm_build import is_cpu_build
from engine.vllm_server import engine_environment
from registry.settings import settings

# What an API server and its engine import until the first token.
PRELOADED = (
    "engine.vllm_plugin.api_server",
    "engine.vllm_plugin.attribution.middleware",
    "engine.vllm_plugin.attribution.scheduler",
    "engine.vllm_plugin.attribution.worker",
    "engine.vllm_plugin.config",
    "engine.vllm_plugin.int8_kernel",
    "engine.vllm_plugin.loader",
    "engine.vllm_plugin.model",
    "model_hosting_container_standards.sagemaker",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_impl",
    "vllm.entrypoints.generate.api_router",
    "vllm.entrypoints.generate.structured_decisions.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
    "vllm.entrypoints.openai.responses.api_router",
    "vllm.entrypoints.serve.instrumentator",
    "vllm.entrypoints.serve.profile.api_router",
    "vllm.entrypoints.serve.sagemaker.api_router",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
)
# No start from nothing is faster than the imports that an engine waits for, unless they hang.
WAIT_SECONDS = 240.0


@contextmanager
def preloaded() -> Iterator[Launcher]:
    """Yield the launcher of engines, which outlive this process if a keeper is above it.

    They are forked until the block ends, unless the setting `preload` is off, Ray places them, or
    vLLM is built for cards.
    """
    keeper = keeping.keeper_pid()
    if not settings().preload or settings().launcher != "local" or not is_cpu_build():
        yield launchers.configured(keeper=keeper)
        return
    launcher = ForkingLauncher(
        PRELOADED,
        env=engine_environment.environment(os.environ),
        log_path=settings().home / "logs" / "preloaded-engines.log",
        keeper=keeper,
        wait_seconds=WAIT_SECONDS,
    )
    try:
        yield launcher
    finally:
        launcher.close()
