"""Run vLLM in this process with requests that ask about experts; tests start it as a process.

Usage: `steered_reader.py < JOBS`. A job is a model folder, requests, and options of vLLM. A request
has token ids as `prompt`, `num_tokens` to write, `asked` as in `Asked`, and a `salt` or none. The
output has `answers`, for each job and each request in order: the written `tokens`, the `rows` that
the worker sent, the number of `cached` tokens. `preempted` says how often a request gave way.
"""

import gc
import json
import sys
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs import TokensPrompt

from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.scheduler import AttributingScheduler
from engine.vllm_plugin.attribution.worker import AttributingWorker
from engine.vllm_plugin.plugin import LOAD_FORMAT

KV_CACHE_BYTES = 64 << 20


class CountingScheduler(AttributingScheduler):
    """Counts how often a request gave way to others."""

    preempted = 0

    def _preempt_request(self, *args: Any, **kwargs: Any) -> None:
        type(self).preempted += 1
        super()._preempt_request(*args, **kwargs)


def main() -> None:
    answers = [_read(*job) for job in json.load(sys.stdin)]
    read = {"answers": answers, "preempted": CountingScheduler.preempted}
    sys.stdout.write("\n" + json.dumps(read))


def _read(folder: str, requests: list[dict[str, Any]], options: dict[str, Any]) -> list[Any]:
    worker = f"{AttributingWorker.__module__}.{AttributingWorker.__name__}"
    llm = LLM(
        folder,
        load_format=LOAD_FORMAT,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        worker_cls=worker,
        scheduler_cls=CountingScheduler,
        # Otherwise vLLM wants nine tenths of the machine's memory, which other tests use too.
        kv_cache_memory_bytes=KV_CACHE_BYTES,
        **options,
    )
    outputs = llm.generate(
        [_prompt(request) for request in requests],
        [_sampling(request) for request in requests],
        use_tqdm=False,
    )
    answers = [_answer(output) for output in outputs]
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    return answers


def _prompt(request: dict[str, Any]) -> TokensPrompt:
    prompt = TokensPrompt(prompt_token_ids=request["prompt"])
    if request["salt"]:
        prompt["cache_salt"] = request["salt"]
    return prompt


def _sampling(request: dict[str, Any]) -> SamplingParams:
    asked = Asked.of({"nexus": request["asked"]})
    return SamplingParams(
        temperature=0,
        max_tokens=request["num_tokens"],
        ignore_eos=True,
        extra_args=asked.replace_in(None),
        skip_reading_prefix_cache=asked.prompt or None,
    )


def _answer(output: Any) -> dict[str, Any]:
    [written] = output.outputs
    rows = written.routed_experts
    return {
        "tokens": list(written.token_ids),
        "rows": None if rows is None else rows.tolist(),
        "cached": output.num_cached_tokens or 0,
    }


if __name__ == "__main__":
    main()
