"""Measure what it costs to say who spoke: counters, weights in answers, experts switched off.

Two servers of one mix take turns: one that knows nothing of it, as vLLM is, and the one that is
always started. The second is asked in four ways. All get the same prompts, one or eight at a time,
each as a stream. No two turns have the same prompts, since servers cache them.
"""

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from engine.divergence.metrics import Tokens
from engine.vllm_build import serving_dtype, vllm_package
from engine.vllm_server import endpoints, engine_command, vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from service.demo.bars import Bar
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.harness import demo_mix, reports

NAME = "attribution"
PACKAGES = ("nexusmix", "torch", vllm_package())
# Options without which a server knows nothing of experts.
OPTIONS = ("--worker-cls=", "--scheduler-cls=", "--middleware=")
OFF, COUNTERS, ROUTING, BLOCKS, MASKS = "off", "counters", "routing", "blocks", "masks"
MODES = (OFF, COUNTERS, ROUTING, BLOCKS, MASKS)
BATCHES = (1, 8)
PROMPT_TOKENS = 32
# Time per token over that of a server that knows nothing of experts.
LIMITS = {COUNTERS: 1.03, ROUTING: 1.05, BLOCKS: 1.10, MASKS: 1.10}
REQUEST_SECONDS = 300


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "cost of counters, weights in answers, and masks")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    chosen = reports.chosen(parser, argv)
    turns, num_tokens = (1, 4) if chosen.quick else (chosen.turns, chosen.tokens)
    demo = demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m()
    with (
        own_home(demo.blobs) as blobs,
        TemporaryDirectory(prefix="nexusmix-attribution-") as folder,
        _servers(demo.mix, blobs, Path(folder)) as servers,
    ):
        measured = {
            str(batch): _compare(servers, demo.mix, batch=batch, turns=turns, tokens=num_tokens)
            for batch in BATCHES
        }
    figures = {
        "model": demo.name,
        "dtype": serving_dtype(),
        "prompt_tokens": PROMPT_TOKENS,
        "tokens": num_tokens,
        "batches": measured,
    }
    bars = [
        Bar(f"{mode}, batch {batch}: seconds over those without", ratio, "<", LIMITS[mode])
        for batch, modes in measured.items()
        for mode in LIMITS
        if (ratio := modes[mode]["ratio"]["median"])
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


@contextmanager
def _servers(mix: Manifest, blobs: BlobStore, folder: Path) -> Iterator[Mapping[str, Server]]:
    """Start a server without the options, and one with them; both answer to `candidate`."""
    whole = engine_command.command

    def plain(*arguments: Any, **fields: Any) -> list[str]:
        return [word for word in whole(*arguments, **fields) if not word.startswith(OPTIONS)]

    with ExitStack() as stack:
        started = {}
        for name, command in (("plain", plain), ("whole", whole)):
            with mock.patch.object(engine_command, "command", command):
                log_path = folder / f"{name}.log"
                serving = vllm_process.serving(mix, blobs=blobs, log_path=log_path)
                started[name] = stack.enter_context(serving)
            started[name].wait_ready()
        yield {mode: started["plain" if mode == OFF else "whole"] for mode in MODES}


def _compare(
    servers: Mapping[str, Server], mix: Manifest, *, batch: int, turns: int, tokens: int
) -> dict[str, Any]:
    """Return seconds of each mode, and their ratios to those of the same turn without anything."""
    generator, order = torch.Generator().manual_seed(batch), random.Random(batch)
    runs: dict[str, list[float]] = {mode: [] for mode in MODES}
    # The first turn is a warm-up.
    for _ in range(turns + 1):
        for mode in order.sample(MODES, len(MODES)):
            shape = (batch, PROMPT_TOKENS)
            drawn = torch.randint(mix.architecture.vocab_size, shape, generator=generator)
            prompts = [tuple(row) for row in drawn.tolist()]
            fields = _fields(mode, mix.architecture.expert_names, batch)
            runs[mode].append(_seconds(servers[mode], prompts, fields, num_tokens=tokens))
    figures = {}
    for mode in MODES:
        seconds, plain = runs[mode][1:], runs[OFF][1:]
        ratios = [a / b for a, b in zip(seconds, plain, strict=True)]
        figures[mode] = {
            "seconds": reports.summary(seconds, digits=4),
            "tokens_per_second": reports.summary([batch * tokens / each for each in seconds]),
            "ratio": reports.summary(ratios),
        }
        reports.say(f"batch {batch}, {mode}: {figures[mode]['ratio']['median']}")
    return figures


def _fields(mode: str, names: Sequence[str], batch: int) -> list[dict[str, Any]]:
    """Return the field `nexus` of each request of a batch; masks differ from one to the next."""
    if mode == MASKS:
        return [{"nexus": {"disable": [names[i % len(names)]]}} for i in range(batch)]
    routing = {ROUTING: True, BLOCKS: "blocks"}.get(mode)
    return [{"nexus": {"routing": routing}} if routing else {}] * batch


def _seconds(
    server: Server, prompts: Sequence[Tokens], fields: Sequence[dict[str, Any]], *, num_tokens: int
) -> float:
    """Return the seconds until all prompts are answered, all asked at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as pool:
        list(pool.map(partial(_stream, server, num_tokens=num_tokens), prompts, fields))
    return time.perf_counter() - began


def _stream(server: Server, prompt: Tokens, field: dict[str, Any], *, num_tokens: int) -> None:
    """Read a whole stream. Raises httpx.HTTPStatusError when the server refuses."""
    asked = {"model": server.model, "prompt": [list(prompt)], "max_tokens": num_tokens}
    asked |= {"temperature": 0, "ignore_eos": True, "stream": True, **field}
    with (
        endpoints.client(server.address, timeout=REQUEST_SECONDS) as client,
        client.stream("POST", "/v1/completions", json=asked) as answer,
    ):
        answer.raise_for_status()
        for _ in answer.iter_raw():
            pass


if __name__ == "__main__":
    sys.exit(main())
