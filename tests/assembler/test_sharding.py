"""A finetune of two processes, each with a slice of the network, learns what one process learns."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine import tensors
from registry import manifests
from registry.blobs import LocalBlobs
from tests.assembler import mixes

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = mixes.store_mix(blobs)
    manifests.store(blobs, mix)
    alone = finetuned(blobs, mix.digest, tmp_path / "alone")
    shared = finetuned(blobs, mix.digest, tmp_path / "shared", launcher=TORCHRUN)
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.gate.weight"
        before, one, two = (
            tensors.read(blobs, manifest.tensors[name]).float() for manifest in (mix, alone, shared)
        )
        assert (one - before).abs().max() > 1
        torch.testing.assert_close(one, two, rtol=0.05, atol=0.05)


def finetuned(
    blobs: LocalBlobs, mix_digest: str, folder: Path, *, launcher: tuple[str, ...] = ()
) -> manifests.Manifest:
    script = ("-m", "tests.assembler.finetune_process", str(blobs.root), mix_digest, str(folder))
    done = subprocess.run(
        [sys.executable, *launcher, *script],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return manifests.load(blobs, done.stdout)
