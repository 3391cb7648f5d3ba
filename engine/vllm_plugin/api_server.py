"""vLLM's OpenAI server, started in less than half the time: `python -m
engine.vllm_plugin.api_server ARGS`.

On a CPU, vLLM starts its engine and its worker as two more Python processes, one after the other,
each of which imports everything again (ten seconds apiece). Here the worker lives in the engine's
process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`, set by `engine.serving.vllm_process`), and the engine
is forked from
the process that has imported everything, as vLLM does by itself on a GPU.
"""

import multiprocessing
from functools import partial

from vllm.entrypoints.launchers.api_server import entry
from vllm.platforms import current_platform
from vllm.v1.engine import utils


def main() -> None:
    if current_platform.is_cpu():
        # The platform insists on "spawn" for the sake of OpenMP: a fork may not come after the
        # first parallel region. Nothing has been computed yet when the engine is made.
        utils.get_mp_context = partial(multiprocessing.get_context, "fork")  # type: ignore[attr-defined]
    entry.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
