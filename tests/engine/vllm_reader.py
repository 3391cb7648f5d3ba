"""Run vLLM in this process to read and continue prompts; tests start it as a separate process.

Usage: `vllm_reader.py NUM_TOKENS FOLDER... < PROMPTS`. Prompts are lists of token ids, as JSON. A
folder without a manifest is loaded as vLLM loads any checkpoint. The output is one list per folder
with an entry per prompt: `positions`, `[argmax, logprob of the token]` from the second token on,
and `greedy`, the `NUM_TOKENS` tokens that follow.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs import TokensPrompt

from engine.vllm_plugin.plugin import LOAD_FORMAT
from registry.checkpoints.file_names import MANIFEST

Prompts = list[list[int]]

KV_CACHE_BYTES = 64 << 20


def main(num_tokens: int, folders: list[str]) -> None:
    prompts: Prompts = json.load(sys.stdin)
    answers = [_read(folder, prompts, num_tokens) for folder in folders]
    sys.stdout.write("\n" + json.dumps(answers))


def _read(folder: str, prompts: Prompts, num_tokens: int) -> list[dict[str, Any]]:
    has_manifest = (Path(folder) / MANIFEST).exists()
    llm = LLM(
        folder,
        load_format=LOAD_FORMAT if has_manifest else "auto",
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        # Otherwise vLLM wants nine tenths of the machine's memory, which other tests use too.
        kv_cache_memory_bytes=KV_CACHE_BYTES,
    )
    sampling = SamplingParams(
        temperature=0, max_tokens=num_tokens, prompt_logprobs=1, ignore_eos=True
    )
    texts = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
    answers = [_answer(output) for output in llm.generate(texts, sampling, use_tqdm=False)]
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    return answers


def _answer(output: Any) -> dict[str, Any]:
    positions = []
    pairs = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    for token, logprobs in pairs:
        top = next(other for other, entry in logprobs.items() if entry.rank == 1)
        positions.append([top, logprobs[token].logprob])
    return {"positions": positions, "greedy": list(output.outputs[0].token_ids)}


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
