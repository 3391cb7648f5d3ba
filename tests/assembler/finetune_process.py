"""One process of a finetune, alone or started by torchrun from `test_sharding`.

Arguments: folder of the blobs, digest of the mix, folder for checkpoints, what trains, and the step
after which it dies (0: it does not). The first process prints `{"digest", "losses"}`.
"""

import json
import os
import sys
from pathlib import Path
from typing import cast

from assembler.finetune import finetune
from assembler.recipe import Finetune, Trained
from assembler.training import Progress
from registry import manifests
from registry.blobs import LocalBlobs
from tests.assembler import mixes

# In bfloat16 the order of sums counts: two processes were measured up to 0.9 % off one, in float32
# 2e-7. A mistake in what processes share would show in both.
RECIPE = Finetune(
    tokens=2304,
    batch_size=6,
    sequence_length=32,
    learning_rate=2e-3,
    dtype="float32",
    load_balance_weight=0.5,
    z_loss_weight=0.01,
)


def main(blobs_path: str, mix_digest: str, checkpoint_path: str, train: str, last: str) -> None:
    blobs, losses = LocalBlobs(Path(blobs_path)), dict[int, float]()

    def note(progress: Progress) -> None:
        losses[progress.step] = progress.loss
        if progress.step == int(last):
            os._exit(1)

    tuned = finetune(
        manifests.load(blobs, mix_digest),
        recipe=RECIPE.model_copy(update={"train": cast(Trained, train)}),
        documents=mixes.expert_documents(),
        blobs=blobs,
        checkpoint_path=Path(checkpoint_path),
        on_progress=note,
        checkpoint_steps=4,
    )
    if os.environ.get("RANK", "0") == "0":
        digest = manifests.store(blobs, tuned)
        sys.stdout.write(json.dumps({"digest": digest, "losses": losses}))


if __name__ == "__main__":
    main(*sys.argv[1:])
