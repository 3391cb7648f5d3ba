"""Assemble as a worker does: `python -m tests.benchmarks.assembly.assembling STORE INPUTS`.

Imports and work are those of the step; only the database with the digests is not used.
"""

import sys
from importlib import import_module
from pathlib import Path

from assembler.jobs import pipeline
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from tests.benchmarks.assembly import llamas


def main(store: Path, inputs: Path) -> int:
    # The imports are part of the cost of a step.
    import_module("assembler.jobs.step_main")
    blobs = LocalBlobs(store)
    mix = pipeline.assemble(llamas.load(inputs), blobs)
    pipeline.worst_condition(mix, blobs)
    sys.stdout.write(manifests.store(blobs, mix) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
