"""The estimated memory of a finetune process agrees with the memory of real processes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from assembler.compute_dtype import ComputingDtype
from assembler.planning.rank_memory import RankMemory, rank_memory
from assembler.recipes.recipe import Finetune, Trained
from assembler.training.parallelism import Parallelism
from tests.assembler import memory_process
from tests.assembler.memory_process import ARCHITECTURE

ROOT = Path(__file__).parents[3]
# Lasting memory is exact; memory for the backward pass is within a tenth.
ACTIVATIONS = 0.1
ALONE = Parallelism()
EXACT = ("frozen_weights", "trained_weights", "gradients", "moments")
# Every token takes every expert, so that the experts have equal work, as the estimate assumes. The
# tokens are too many for the plain attention kernel of a CPU.
NUM_CHOSEN, LENGTH = ARCHITECTURE.num_experts, 520
PATIENCE_SECONDS = 1200


def recipe(*, train: Trained, dtype: ComputingDtype = "bfloat16") -> Finetune:
    return Finetune(
        tokens=1,
        train=train,
        dtype=dtype,
        batch_size=4,
        sequence_length=LENGTH,
        domain_loss_q=1.0,
    )


RECIPES = [recipe(train="router"), recipe(train="all"), recipe(train="all", dtype="float32")]


def estimate(finetune: Finetune, parallelism: Parallelism = ALONE) -> RankMemory:
    mix = replace(ARCHITECTURE, num_experts_per_tok=NUM_CHOSEN)
    return rank_memory(mix, finetune, parallelism)


def measure(cases: list[tuple[int, Finetune]], num_processes: int) -> list[dict[str, int]]:
    """Measure a training step for each degree and recipe, in real processes."""
    fields: list[dict[str, Any]] = [
        {"recipe": finetune.model_dump(), "degree": degree, "experts_per_token": NUM_CHOSEN}
        for degree, finetune in cases
    ]
    if num_processes == 1:
        return memory_process.measure(fields)
    torchrun = (sys.executable, "-m", "assembler.training.torchrun", str(num_processes))
    done = subprocess.run(
        [*torchrun, "tests.assembler.memory_process", json.dumps(fields)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "degrees"), [(1, [1]), (2, [1, 2]), (4, [2])])
def test_the_estimate_agrees_with_real_processes(num_processes: int, degrees: list[int]) -> None:
    cases = [(degree, finetune) for degree in degrees for finetune in RECIPES]
    for (degree, finetune), measured in zip(cases, measure(cases, num_processes), strict=True):
        parallelism = Parallelism(num_processes=num_processes, expert_parallel_degree=degree)
        expected = asdict(estimate(finetune, parallelism))
        for part in EXACT:
            assert measured[part] == expected[part], (degree, finetune.train, finetune.dtype, part)
        kept, of = measured["activations"], (degree, finetune.train)
        assert kept == pytest.approx(expected["activations"], rel=ACTIVATIONS), of


def test_one_process_needs_no_communication_buffers() -> None:
    memory = estimate(recipe(train="all"))
    assert (memory.gathered, memory.dispatch) == (0, 0)


def test_distributed_experts_are_gathered_from_fewer_processes() -> None:
    def of(degree: int) -> RankMemory:
        return estimate(
            recipe(train="all"), Parallelism(num_processes=4, expert_parallel_degree=degree)
        )

    sliced, dealt = of(1), of(4)
    assert dealt.gathered < sliced.gathered
    assert sliced.dispatch == 0 < dealt.dispatch
    # The shares are equal, except for rows that cannot be halved.
    assert dealt.moments == pytest.approx(sliced.moments, rel=0.02)
