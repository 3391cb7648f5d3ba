"""Compare the tokens per second of a finetune with transformers' Qwen2-MoE, shaped as SmolLM2-135M.

There are three contenders: ours as a worker starts it, theirs with default settings, and theirs
with our worker's settings of the allocator, which shows their effect. Each has a process of its own
with torch's number of threads. They take turns, and the order changes. Theirs uses the fastest of
its implementations. In the same turns the matrix products of a step are timed alone; their share of
our time shows how near we are to the limit of the processor. On processors that cannot multiply
bfloat16 this takes hours (`--dtype`).
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, get_args

import torch

from assembler.compute_dtype import ComputingDtype, fastest
from assembler.jobs.step_process import ALLOCATOR
from assembler.recipes.recipe import Trained
from assembler.training.batches import Batch
from assembler.training.optimizer import DTYPES
from registry.checkpoints.architecture import Architecture
from service.demo.bars import Bar
from tests.benchmarks.finetune import arithmetic
from tests.benchmarks.finetune.arithmetic import Product
from tests.benchmarks.finetune.frameworks import Case, Contender, Ours, Theirs
from tests.benchmarks.finetune.turns import Turns
from tests.benchmarks.harness import reports

NAME = "finetune"
PACKAGES = ("nexusmix", "torch", "transformers")
PARTS: tuple[Trained, ...] = ("router", "all")
OURS, THEIRS, THEIRS_TUNED = "nexusmix", "transformers", "transformers, our allocator"
CONTENDERS: Mapping[str, tuple[Callable[..., Contender], Mapping[str, str]]] = {
    OURS: (Ours, ALLOCATOR),
    THEIRS: (Theirs, {}),
    THEIRS_TUNED: (Theirs, ALLOCATOR),
}
VOCAB_SIZE, QUICK_VOCAB_SIZE = 49_152, 512
MIN_RATIO = 1.3


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "the finetune's speed against transformers' Qwen2-MoE")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--experts-per-token", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--dtype",
        choices=get_args(ComputingDtype),
        default=fastest(),
        help="data type of matrix products and of frozen tensors; by default the fastest one here",
    )
    parser.add_argument(
        "--device",
        type=torch.device,
        default=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        help="device; by default a GPU, if there is one",
    )
    chosen = reports.chosen(parser, argv)
    if chosen.quick:
        chosen.layers, chosen.batch_size, chosen.length, chosen.rounds = 1, 2, 32, 2
    architecture = _architecture(
        layers=chosen.layers,
        experts=chosen.experts,
        experts_per_token=chosen.experts_per_token,
        vocab_size=QUICK_VOCAB_SIZE if chosen.quick else VOCAB_SIZE,
    )
    batch = _batch(architecture, num_sequences=chosen.batch_size, length=chosen.length)
    cases = {
        part: Case(
            architecture=architecture,
            batch=batch,
            train=part,
            dtype=chosen.dtype,
            device=chosen.device,
        )
        for part in PARTS
    }
    figures = {part: _compare(case, rounds=chosen.rounds) for part, case in cases.items()}
    shape = {
        "layers": architecture.num_hidden_layers,
        "experts": architecture.num_experts,
        "experts_per_token": architecture.num_experts_per_tok,
        "batch_size": chosen.batch_size,
        "length": chosen.length,
        "dtype": chosen.dtype,
        "device": chosen.device.type,
    }
    bars = [
        Bar(f"speed over transformers', training {part}", f["ratio"]["median"], ">=", MIN_RATIO)
        for part, f in figures.items()
    ]
    return reports.write(
        chosen.output,
        figures={"shape": shape, "threads": torch.get_num_threads(), "trained": figures},
        bars=[] if chosen.quick else bars,
        packages=PACKAGES,
    )


def _architecture(
    *, layers: int, experts: int, experts_per_token: int, vocab_size: int
) -> Architecture:
    """Return a mixture with the widths of SmolLM2-135M and of the product's text encoder."""
    return Architecture(
        vocab_size=vocab_size,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        rms_norm_eps=1e-5,
        rope_theta=100_000.0,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        num_experts=experts,
        num_experts_per_tok=experts_per_token,
        expert_names=tuple(f"expert-{number}" for number in range(experts)),
        domain_embedding_size=385,
    )


def _batch(architecture: Architecture, *, num_sequences: int, length: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (num_sequences, length)
    tokens = torch.randint(architecture.vocab_size, shape, generator=generator)
    labels = torch.arange(num_sequences) % architecture.num_experts
    return Batch(tokens=tokens, labels=labels, weights=torch.ones(num_sequences))


def _compare(case: Case, *, rounds: int) -> dict[str, Any]:
    num_sequences, length = case.batch.tokens.shape
    needed = arithmetic.products(
        case.architecture, num_sequences=num_sequences, length=length, train=case.train
    )
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    alone: list[float] = []
    with ExitStack() as stack:
        turns, implementations = dict[str, Turns](), dict[str, dict[str, str]]()
        for name, (contender, env) in CONTENDERS.items():
            turns[name] = stack.enter_context(Turns(partial(contender, case), env=env))
            # This waits until it is ready, so that no two choose their fastest code at once.
            implementations[name] = turns[name].implementations()
        held = {name: turn.bytes_held() for name, turn in turns.items()}
        for number in range(rounds):
            for name in sorted(turns, reverse=bool(number % 2)):
                seconds[name].append(turns[name].seconds())
            alone.append(sum(one.seconds(DTYPES[case.dtype], case.device) for one in needed))
            reports.say(
                f"{case.train} {number + 1}/{rounds}: "
                + ", ".join(f"{name} {runs[-1]:.3f} s" for name, runs in seconds.items())
                + f", products alone {alone[-1]:.3f} s"
            )
    return _figures(seconds, alone, needed=needed, num_tokens=case.batch.tokens.numel()) | {
        "implementations": {name: chosen for name, chosen in implementations.items() if chosen},
        "mb_held_for_backward": {name: round(size / 1e6, 1) for name, size in held.items()},
    }


def _figures(
    seconds: dict[str, list[float]],
    alone: Sequence[float],
    *,
    needed: Sequence[Product],
    num_tokens: int,
) -> dict[str, Any]:
    flops = sum(one.flops for one in needed)
    return {
        "tokens_per_second": {
            name: reports.summary([num_tokens / s for s in runs], digits=1)
            for name, runs in seconds.items()
        },
        "ratio": reports.summary(_ratios(seconds[OURS], seconds[THEIRS])),
        "ratio_with_our_allocator": reports.summary(_ratios(seconds[OURS], seconds[THEIRS_TUNED])),
        "mflops_per_token": round(flops / num_tokens / 1e6, 1),
        "product_gflops_per_second": round(flops / statistics.median(alone) / 1e9, 1),
        "share_of_products": {
            name: round(statistics.median(a / s for a, s in zip(alone, runs, strict=True)), 3)
            for name, runs in seconds.items()
        },
    }


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [b / a for a, b in zip(ours, theirs, strict=True)]
