"""Start vLLM's OpenAI server in less than half the usual time:
`python -m engine.vllm_plugin.api_server ARGS`.

On a CPU, vLLM starts its engine and its worker as two more Python processes, one after the other.
Each of them imports everything again, which takes ten seconds. Here the worker runs in the engine's
process: `engine.vllm_server.engine_environment` sets `VLLM_ENABLE_V1_MULTIPROCESSING=0`. The engine
is forked from the process that has already imported everything, as vLLM itself does on a GPU.

vLLM also imports a network in one more Python process, to ask what it can do, the first time that
it serves it: a CUDA that is initialized would not survive a fork. On a CPU we ask it here.
"""

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from vllm.entrypoints.launchers.api_server import entry
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.v1.engine import async_llm, utils
from vllm.v1.sample import sampler

from engine.vllm_plugin import token_ranks
from engine.vllm_plugin.attribution.output_processor import AttributingProcessor

T = TypeVar("T")

# Names the file of the key that this server asks for, if it listens on a port: what stands in an
# environment or in arguments can be read by others.
KEY_VARIABLE = "NEXUSMIX_ENGINE_KEY_FILE"


def main() -> None:
    """Run vLLM's API server, with a forked engine on a CPU."""
    if path := os.environ.get(KEY_VARIABLE):
        os.environ["VLLM_API_KEY"] = Path(path).read_text().strip()
    if current_platform.is_cpu():
        # vLLM's CPU platform insists on "spawn" because OpenMP forbids a fork after the first
        # parallel region. Forking is safe here: nothing has been computed yet when the engine is
        # made.
        utils.get_mp_context = partial(multiprocessing.get_context, "fork")  # type: ignore[attr-defined]
        registry._run_in_subprocess = _run_here
        # vLLM has no option for it, as it has for the worker and the scheduler.
        async_llm.OutputProcessor = AttributingProcessor  # type: ignore[attr-defined]
        sampler.batched_count_greater_than = token_ranks.count_at_least  # type: ignore[attr-defined]
    entry.main()  # type: ignore[no-untyped-call]


def _run_here(fn: Callable[[], T]) -> T:
    return fn()


if __name__ == "__main__":
    main()
