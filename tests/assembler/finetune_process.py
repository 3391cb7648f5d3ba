"""One process of a sharded finetune, started by torchrun from `test_sharding`.

Arguments: folder of the blobs, digest of the mix, folder for checkpoints. The first process prints
the result's digest.
"""

import os
import sys
from pathlib import Path

from assembler.finetune import finetune
from assembler.recipe import Finetune
from registry import manifests
from registry.blobs import LocalBlobs
from tests.assembler import mixes

RECIPE = Finetune(tokens=1152, batch_size=6, sequence_length=32, learning_rate=1e-2)


def main(blobs_path: str, mix_digest: str, checkpoint_path: str) -> None:
    blobs = LocalBlobs(Path(blobs_path))
    tuned = finetune(
        manifests.load(blobs, mix_digest),
        recipe=RECIPE,
        documents=mixes.expert_documents(),
        blobs=blobs,
        checkpoint_path=Path(checkpoint_path),
        on_progress=lambda progress: None,
        checkpoint_steps=4,
    )
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(manifests.store(blobs, tuned))


if __name__ == "__main__":
    main(*sys.argv[1:])
