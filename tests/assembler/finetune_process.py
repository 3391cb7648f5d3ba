"""Run finetunes in a process that torchrun starts for `test_distributed`, or in a test.

The argument is a JSON list of `Options`. The first process prints the list of results of `run`.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from assembler.recipes.recipe import Finetune
from assembler.training.distributed import is_first_process, process_group
from assembler.training.finetune import finetune
from assembler.training.optimizer import Progress
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from tests.assembler import tiny_mixes

EXPERTS = (1, 2, 3, 4)
CHECKPOINT_STEPS = 4
RECIPE = Finetune(
    tokens=3072,
    batch_size=8,
    sequence_length=32,
    learning_rate=2e-3,
    router_learning_rate=2e-3,
    dtype="float32",
    load_balance_weight=0.5,
    z_loss_weight=0.01,
)


class Options(TypedDict):
    """The options of one finetune.

    Folders of blobs and checkpoints, the digest of the mix, and `last`, the step after which the
    run dies; 0: it does not.
    """

    blobs: str
    checkpoints: str
    mix: str
    recipe: dict[str, Any]
    degree: int
    last: int


def run(options: Options, *, die: Callable[[], object]) -> dict[str, Any]:
    """Run a finetune and return `{"digest", "losses", "shares"}`; the latter two by step."""
    blobs, progress_by_step = LocalBlobs(Path(options["blobs"])), dict[str, Progress]()

    def record(progress: Progress) -> None:
        progress_by_step[str(progress.step)] = progress
        if progress.step == options["last"]:
            die()

    tuned = finetune(
        manifests.load(blobs, options["mix"]),
        recipe=Finetune.model_validate(options["recipe"]),
        documents=tiny_mixes.expert_documents(EXPERTS),
        blobs=blobs,
        checkpoint_path=Path(options["checkpoints"]),
        on_progress=record,
        checkpoint_steps=CHECKPOINT_STEPS,
        expert_parallel_degree=options["degree"],
    )
    return {
        "digest": manifests.store(blobs, tuned),
        "losses": {step: p.loss for step, p in progress_by_step.items()},
        "shares": {step: p.expert_shares for step, p in progress_by_step.items()},
    }


if __name__ == "__main__":
    with process_group():
        results = [run(options, die=lambda: os._exit(1)) for options in json.loads(sys.argv[1])]
    if is_first_process():
        sys.stdout.write(json.dumps(results))
