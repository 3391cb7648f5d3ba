"""Tokens per second of a finetune against transformers' Qwen2-MoE, at the shape of SmolLM2-135M.

One process on as many threads as torch takes; the two take turns, and which goes first changes.
Theirs uses whichever of its implementations is fastest here. In the same turns the products that a
step needs are timed alone: how much of our time they would take is how near we are to what the
processor can do. Where bfloat16 is not multiplied in hardware, it takes hours (`--dtype`).
"""

import os
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import product
from typing import Any, get_args

import torch

from assembler.data import Batch
from assembler.precision import ComputingDtype, fastest
from assembler.recipe import Trained
from assembler.training import DTYPES
from registry.architecture import Architecture
from service.bars import Bar
from tests.benchmarks import arithmetic, reports
from tests.benchmarks.arithmetic import Product
from tests.benchmarks.contenders import (
    ATTENTION_IMPLEMENTATIONS,
    EXPERTS_IMPLEMENTATIONS,
    Contender,
    Ours,
    Theirs,
)

NAME = "finetune"
PACKAGES = ("nexusmix", "torch", "transformers")
PARTS: tuple[Trained, ...] = ("router", "all")
MIN_RATIO = 1.3
STEPS_PER_TURN = 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "the finetune's speed against transformers' Qwen2-MoE")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--experts-per-token", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--dtype",
        choices=get_args(ComputingDtype),
        default=fastest(),
        help="of products and of what is frozen; if not told what is fastest here",
    )
    chosen = parser.parse_args(argv)
    # As the worker sets it for its training processes; here for both.
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
    architecture = _architecture(
        layers=2 if chosen.quick else chosen.layers,
        experts=chosen.experts,
        experts_per_token=chosen.experts_per_token,
    )
    rounds = 2 if chosen.quick else chosen.rounds
    batch = _batch(architecture, num_sequences=chosen.batch_size, length=chosen.length)
    figures = {
        part: _compare(architecture, batch, train=part, dtype=chosen.dtype, rounds=rounds)
        for part in PARTS
    }
    shape = {
        "layers": architecture.num_hidden_layers,
        "experts": architecture.num_experts,
        "experts_per_token": architecture.num_experts_per_tok,
        "batch_size": chosen.batch_size,
        "length": chosen.length,
        "dtype": chosen.dtype,
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


def _architecture(*, layers: int, experts: int, experts_per_token: int) -> Architecture:
    """As wide as SmolLM2-135M, domain embeddings as wide as the product's encoder's."""
    return Architecture(
        vocab_size=49_152,
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
    return Batch(tokens=tokens, labels=torch.arange(num_sequences) % architecture.num_experts)


def _compare(
    architecture: Architecture,
    batch: Batch,
    *,
    train: Trained,
    dtype: ComputingDtype,
    rounds: int,
) -> dict[str, Any]:
    num_sequences, length = batch.tokens.shape
    needed = arithmetic.products(
        architecture, num_sequences=num_sequences, length=length, train=train
    )
    torch.manual_seed(0)
    ours = Ours(architecture, batch=batch, train=train, dtype=dtype)
    theirs = Theirs(architecture, batch=batch, train=train, dtype=dtype)
    implementations = _fastest(theirs)
    held = {c.name: arithmetic.bytes_held(c.step, c.network) for c in (ours, theirs)}
    seconds: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    alone: list[float] = []
    for number in range(rounds):
        pair: tuple[Contender, Contender] = (ours, theirs) if number % 2 else (theirs, ours)
        for contender in pair:
            seconds[contender.name].append(_step_seconds(contender))
        alone.append(sum(one.seconds(DTYPES[dtype]) for one in needed))
        reports.say(
            f"{train} {number + 1}/{rounds}: "
            + ", ".join(f"{name} {runs[-1]:.3f} s" for name, runs in seconds.items())
            + f", products alone {alone[-1]:.3f} s"
        )
    return _figures(seconds, alone, needed=needed, num_tokens=batch.tokens.numel()) | {
        "their_implementations": implementations,
        "mb_held_for_backward": {name: round(size / 1e6, 1) for name, size in held.items()},
    }


def _fastest(theirs: Theirs) -> dict[str, str]:
    """Have theirs use its fastest implementations; returns which."""
    seconds = {}
    for experts, attention in product(EXPERTS_IMPLEMENTATIONS, ATTENTION_IMPLEMENTATIONS):
        theirs.use(experts=experts, attention=attention)
        theirs.step()
        seconds[experts, attention] = _step_seconds(theirs)
    experts, attention = min(seconds, key=seconds.__getitem__)
    theirs.use(experts=experts, attention=attention)
    return {"experts": experts, "attention": attention}


def _step_seconds(contender: Contender) -> float:
    contender.step()
    started_at = time.perf_counter()
    for _ in range(STEPS_PER_TURN):
        contender.step()
    return (time.perf_counter() - started_at) / STEPS_PER_TURN


def _figures(
    seconds: dict[str, list[float]],
    alone: Sequence[float],
    *,
    needed: Sequence[Product],
    num_tokens: int,
) -> dict[str, Any]:
    ours, theirs = seconds[Ours.name], seconds[Theirs.name]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    flops = sum(one.flops for one in needed)
    return {
        "tokens_per_second": {
            name: reports.summary([num_tokens / s for s in runs], digits=1)
            for name, runs in seconds.items()
        },
        "ratio": reports.summary(ratios),
        "mflops_per_token": round(flops / num_tokens / 1e6, 1),
        "product_gflops_per_second": round(flops / statistics.median(alone) / 1e9, 1),
        "share_of_products": {
            name: round(statistics.median(a / s for a, s in zip(alone, runs, strict=True)), 3)
            for name, runs in seconds.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
